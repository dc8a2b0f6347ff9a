// The memory that is moved: pages of all kinds that frames treat differently, the same for the same seed.
import { createCipheriv } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { PAGE_BYTES } from 'abdm';
import { Random } from './random.js';

const KINDS = ['zero', 'duplicate', 'text', 'text', 'sparse', 'random', 'random'] as const;
const TEXT_BYTES = 1 << 20;

/** Words of a small vocabulary, as long as it takes. */
function textOf(random: Random): Buffer {
  const vocabulary = Array.from({ length: 700 }, () =>
    random
      .next()
      .toString(36)
      .slice(2, 3 + random.below(9)),
  );
  let text = '';
  while (text.length < TEXT_BYTES + PAGE_BYTES) text += `${random.pick(vocabulary)} `;
  return Buffer.from(text);
}

/** Writes `pages` pages to `path`. */
export function writeImage(path: string, pages: number, ...seeds: readonly (number | string)[]): void {
  const random = new Random('image', ...seeds);
  const text = textOf(random);
  const key = Buffer.alloc(16);
  key.writeUInt32LE(random.below(2 ** 32));
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  const zero = Buffer.alloc(PAGE_BYTES);
  const image = Buffer.alloc(pages * PAGE_BYTES);
  for (let at = 0; at < image.length; at += PAGE_BYTES) {
    const kind = random.pick(KINDS);
    if (kind === 'text') {
      const from = random.below(TEXT_BYTES);
      text.copy(image, at, from, from + PAGE_BYTES);
    }
    if (kind === 'random') cipher.update(zero).copy(image, at);
    else if (kind === 'sparse') image.writeUInt32LE(random.below(2 ** 32), at + random.below(1000) * 4);
    else if (kind === 'duplicate' && at > 0) {
      const from = random.below(at / PAGE_BYTES) * PAGE_BYTES;
      image.copyWithin(at, from, from + PAGE_BYTES);
    }
  }
  writeFileSync(path, image);
}
