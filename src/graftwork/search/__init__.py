"""What `auto` is made of: rows to choose on, candidates, the order of trials, the choice, the record."""
