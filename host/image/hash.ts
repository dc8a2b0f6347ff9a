// The name of an image's content: SHA-256 of all its regions in the order of their pages, exactly their bytes. Equal to what
// `sha256sum` says of a file that the image was merged into.
import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { PAGE_BYTES } from '../../bindings/abi.js';
import type { ImageSource } from './image.js';

const STEP_PAGES = 256;

/**
 * SHA-256 of `source`, in hex. Takes about a second a GiB; other work gets its turn in between.
 * @throws AbdmError IMAGE if the image cannot be read.
 */
export async function hashImage(source: ImageSource): Promise<string> {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(STEP_PAGES * PAGE_BYTES);
  for (const { firstPfn, pages, bytes } of source.regions) {
    for (let page = 0; page < pages; page += STEP_PAGES) {
      const count = Math.min(STEP_PAGES, pages - page);
      source.read(firstPfn + page, count, buffer, 0);
      hash.update(buffer.subarray(0, Math.min(count * PAGE_BYTES, bytes - page * PAGE_BYTES)));
      await setImmediate();
    }
  }
  return hash.digest('hex');
}
