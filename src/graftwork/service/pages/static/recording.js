// The microphone -> a WAV file: what browsers record by themselves (webm, opus) not every decoder reads.
const LONGEST_S = 120;

/** samples in -1..1 -> 16-bit mono WAV. */
export function wav(chunks, rate) {
  const length = chunks.reduce((sum, one) => sum + one.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const ascii = (offset, text) => [...text].forEach((one, i) => view.setUint8(offset + i, one.charCodeAt(0)));
  ascii(0, "RIFF"); view.setUint32(4, 36 + 2 * length, true); ascii(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  ascii(36, "data"); view.setUint32(40, 2 * length, true);
  let at = 44;
  for (const chunk of chunks) for (const one of chunk) { view.setInt16(at, Math.round(32767 * Math.max(-1, Math.min(1, one))), true); at += 2; }
  return new File([view], "recording.wav", { type: "audio/wav" });
}

/** Start recording; heard(seconds, level) as it goes. Resolves to {stop() -> File}. */
export async function record(worklet, heard, full) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const context = new AudioContext();
  await context.audioWorklet.addModule(worklet);
  const node = new AudioWorkletNode(context, "recorder");
  const chunks = [];
  let samples = 0;
  node.port.onmessage = ({ data }) => {
    if (samples >= LONGEST_S * context.sampleRate) { full(); return; }
    chunks.push(data);
    samples += data.length;
    if (chunks.length % 8 === 0) heard(samples / context.sampleRate, Math.max(...data.map(Math.abs)));
  };
  context.createMediaStreamSource(stream).connect(node).connect(context.destination);
  return {
    async stop() {
      stream.getTracks().forEach((one) => one.stop());
      const rate = context.sampleRate;
      await context.close();
      return wav(chunks, rate);
    },
  };
}
