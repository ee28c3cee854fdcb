// The noise of images in plain JavaScript, written from the docstring of mezzotint.runtime.noise.
//
//     node noise.mjs SEED I STEP COUNT PART
//
// prints COUNT numbers of one image, one a line, as hexadecimal floating-point literals.

const MASK = 0xffffffffn;

function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * c0;
    const b = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & MASK, (a >> 32n) ^ c3 ^ k1, a & MASK];
    k0 = (k0 + 0x9e3779b9n) & MASK;
    k1 = (k1 + 0xbb67ae85n) & MASK;
  }
  return [c0, c1, c2, c3].map(Number);
}

const halves = (x) => [BigInt.asUintN(32, x), BigInt.asUintN(32, x >> 32n)];
const uniform = (high, low) => ((high >>> 6) * 2 ** 26 + (low >>> 6) + 0.5) / 2 ** 52;

function* noise(seed, i, step, count, part) {
  const first = part * Math.ceil(count / 2);
  for (let p = 0; p < count; p++) {
    const block = BigInt(first + Math.floor(p / 2));
    const [w0, w1, w2, w3] = philox([block, BigInt(step), ...halves(i)], halves(seed));
    const radius = Math.sqrt(-2 * Math.log(uniform(w0, w1)));
    const angle = 2 * Math.PI * uniform(w2, w3);
    yield radius * (p % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
  }
}

function hexadecimal(x) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, x);
  const bits = view.getBigUint64(0);
  const exponent = Number((bits >> 52n) & 0x7ffn) - 1023;
  const fraction = (bits & (2n ** 52n - 1n)).toString(16).padStart(13, "0");
  return `${x < 0 ? "-" : ""}0x1.${fraction}p${exponent}`;
}

const [seed, i, step, count, part] = process.argv.slice(2);
for (const x of noise(BigInt(seed), BigInt(i), Number(step), Number(count), Number(part))) {
  console.log(hexadecimal(x));
}
