"""What users send, made safe: names, archives, tables and tensors are checked before anything reads them."""
