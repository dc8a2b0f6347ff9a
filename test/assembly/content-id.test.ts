import { describe, expect, test } from 'vitest';
import { KEY_BYTES, PAGE_BYTES } from '#abdm/bindings/abi.js';
import { rawEngine, scale, seeded } from '../engine.js';
import { expandKey, contentId as idOracle, nh as nhOracle } from '../oracle/content-id.js';

// Fixed by assembly/layout.ts; no other export shows the key schedule.
const NH_KEY = 0x2400;
const SIP_KEY = NH_KEY + 4144;
const TAG_KEY = NH_KEY + 4160;

const PAGES = 8;
const engine = rawEngine(1 << 20);
const { bytes, free } = engine;
const keyPtr = free;
const outPtr = free + 64;
const next = seeded(4);
const hex = (from: number, length: number) => Buffer.from(bytes.subarray(from, from + length)).toString('hex');
const hexOf = (array: Uint8Array) => Buffer.from(array).toString('hex');
/** The pages under test end with the memory, so that reading past them traps. */
const pagesPtr = bytes.length - PAGES * PAGE_BYTES;

function keyed(secret: Uint8Array) {
  bytes.set(secret, keyPtr);
  engine.setKey(keyPtr);
  return expandKey(secret);
}

const randomKey = () => Uint8Array.from({ length: KEY_BYTES }, next);

/** Pages that try carries: all zeros, all ones, zeros and then one byte over and over, random. */
function fillPage(kind: number, ptr: number) {
  const page = bytes.subarray(ptr, ptr + PAGE_BYTES);
  if (kind === 0) page.fill(0);
  else if (kind === 1) page.fill(255);
  else if (kind === 2) page.fill(0).fill(next(), next() % PAGE_BYTES);
  else for (let i = 0; i < PAGE_BYTES; i++) page[i] = next();
  return page;
}

describe('setKey', () => {
  test('expands the secret as the definition says', () => {
    for (let i = 0; i < 3; i++) {
      const secret = i === 0 ? new Uint8Array(KEY_BYTES) : randomKey();
      const key = keyed(secret);
      expect(hex(NH_KEY, 4144)).toBe(hexOf(key.nh));
      expect(hex(SIP_KEY, 16)).toBe(hexOf(key.sip));
      expect(hex(TAG_KEY, 16)).toBe(hexOf(key.tag));
      expect(hex(keyPtr, KEY_BYTES)).toBe(hexOf(secret));
    }
  });

  test('touches nothing around the key schedule', () => {
    bytes.fill(0xa5, NH_KEY - 64, NH_KEY);
    bytes.fill(0xa5, TAG_KEY + 16, TAG_KEY + 80);
    keyed(randomKey());
    expect(hex(NH_KEY - 64, 64)).toBe('a5'.repeat(64));
    expect(hex(TAG_KEY + 16, 64)).toBe('a5'.repeat(64));
  });
});

describe('nh', () => {
  test('agrees with the oracle', () => {
    for (let i = 0; i < scale(24); i++) {
      const key = keyed(randomKey());
      const page = fillPage(i % 4, pagesPtr + 7 * PAGE_BYTES);
      engine.nh(pagesPtr + 7 * PAGE_BYTES, outPtr);
      expect(hex(outPtr, 32)).toBe(hexOf(nhOracle(key.nh, page)));
    }
  });

  test('agrees with the oracle where every sum carries', () => {
    const key = keyed(randomKey());
    const forged = new Uint8Array(key.nh.length).fill(255);
    bytes.set(forged, NH_KEY);
    const page = fillPage(0, pagesPtr);
    engine.nh(pagesPtr, outPtr);
    expect(hex(outPtr, 32)).toBe(hexOf(nhOracle(forged, page)));
  });
});

describe('contentId', () => {
  test('agrees with the oracle, and writes 16 bytes', () => {
    for (let i = 0; i < scale(16); i++) {
      const key = keyed(randomKey());
      const page = fillPage(i % 4, pagesPtr + 7 * PAGE_BYTES);
      bytes.fill(0xa5, outPtr, outPtr + 32);
      engine.contentId(pagesPtr + 7 * PAGE_BYTES, outPtr);
      expect(hex(outPtr, 16)).toBe(hexOf(idOracle(key, page)));
      expect(hex(outPtr + 16, 16)).toBe('a5'.repeat(16));
    }
  });

  test('changes with every bit of the page', () => {
    keyed(randomKey());
    const page = fillPage(3, pagesPtr);
    const seen = new Set<string>();
    const id = () => {
      engine.contentId(pagesPtr, outPtr);
      seen.add(hex(outPtr, 16));
    };
    id();
    for (let bit = 0; bit < PAGE_BYTES * 8; bit++) {
      page[bit >> 3]! ^= 1 << (bit & 7);
      id();
      page[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(seen.size).toBe(PAGE_BYTES * 8 + 1);
  });

  test('is another one under another key', () => {
    fillPage(0, pagesPtr);
    const ids = [0, 16].map((at) => {
      const secret = new Uint8Array(KEY_BYTES);
      secret[at] = 1;
      keyed(secret);
      engine.contentId(pagesPtr, outPtr);
      return hex(outPtr, 16);
    });
    expect(ids[0]).not.toBe(ids[1]);
  });
});

describe('contentIds', () => {
  test.each([0, 1, 2, 3, PAGES])('names %i pages as contentId does one', (pages) => {
    keyed(randomKey());
    const from = pagesPtr + (PAGES - pages) * PAGE_BYTES;
    let expected = '';
    for (let i = 0; i < pages; i++) {
      fillPage(3, from + i * PAGE_BYTES);
      engine.contentId(from + i * PAGE_BYTES, outPtr);
      expected += hex(outPtr, 16);
    }
    bytes.fill(0xa5, outPtr, outPtr + 16 * PAGES + 16);
    engine.contentIds(from, pages, outPtr);
    expect(hex(outPtr, 16 * pages)).toBe(expected);
    expect(hex(outPtr + 16 * pages, 16)).toBe('a5'.repeat(16));
  });
});
