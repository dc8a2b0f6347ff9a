// Images of the mix of pages.ts, as files.
import { writeFileSync } from 'node:fs';
import { PAGE_BYTES } from 'abdm';
import { createRecipe } from './pages.js';

/** Duplicates are found within so many pages. */
const WINDOW_PAGES = 2048;

export async function writeMix(path: string, bytes: number): Promise<void> {
  const pages = new Uint8Array(bytes);
  (await createRecipe(bytes / PAGE_BYTES, WINDOW_PAGES)).fill(pages, 'mix');
  writeFileSync(path, pages);
}
