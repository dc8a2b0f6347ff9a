// The execution state: what is written is read, and nothing else is believed.
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeState, type ExecutionState, encodeState } from '#abdm/host/guest/state.js';
import { firstStreams } from '#abdm/host/guest/vcpus.js';
import { workload } from './guests.js';

const PAGE = 4096;
const coded = expect.objectContaining({ code: 'PROTOCOL' });

function stateOf(versions: Record<number, number> = {}, pages = 1000): ExecutionState {
  const guest = workload({ memoryBytes: pages * PAGE, workingSetBytes: PAGE });
  const all = new Uint32Array(pages);
  for (const [pfn, version] of Object.entries(versions)) all[Number(pfn)] = version;
  return { workload: guest, operation: 123_456_789_012, streams: firstStreams(guest), versions: all };
}

/** With the hash that fits it: whoever makes a state up can do that, too. */
function signed(state: Uint8Array): Uint8Array {
  const body = state.subarray(0, -32);
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

test('is read as it was written', () => {
  const version = fc.integer({ min: 1, max: 2 ** 32 - 1 });
  const written = fc.dictionary(fc.integer({ min: 0, max: 988 }).map(String), version);
  fc.assert(
    fc.property(written, fc.integer({ min: 989, max: 1003 }), (versions, pages) => {
      const state = stateOf(versions as Record<number, number>, pages);
      expect(decodeState(encodeState(state))).toEqual(state);
    }),
  );
  const edges = stateOf({ 0: 1, 1: 127, 2: 128, 3: 16_383, 4: 16_384, 998: 2 ** 28, 999: 2 ** 32 - 1 });
  expect(decodeState(encodeState(edges))).toEqual(edges);
  const all = stateOf();
  all.versions.fill(2 ** 32 - 1);
  expect(decodeState(encodeState(all))).toEqual(all);
});

test('costs a byte for a page that was written now and then, and a bit for one that was not', () => {
  const none = encodeState(stateOf({}, 8000)).length;
  const some = encodeState(stateOf(Object.fromEntries(Array.from({ length: 500 }, (_, i) => [i * 9, 100])), 8000));
  expect(some.length - none).toBe(500);
  expect(none).toBeLessThan(1000 + 1000);
});

test('that is cut short or damaged anywhere is refused', () => {
  const state = encodeState(stateOf({ 3: 7, 500: 300 }));
  for (let end = 0; end < state.length; end++) expect(() => decodeState(state.subarray(0, end))).toThrow(coded);
  for (let at = 0; at < state.length; at++) {
    const damaged = Uint8Array.from(state);
    damaged[at]! ^= 1 << (at % 8);
    expect(() => decodeState(damaged)).toThrow(coded);
  }
});

test('that is made up is refused, or is a state', () => {
  const state = encodeState(stateOf({ 3: 7, 500: 300 }));
  let refused = 0;
  const change = fc.tuple(fc.nat(state.length - 33), fc.nat(255));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), fc.nat(40), (changes, cut) => {
      const made = Uint8Array.from(state);
      for (const [at, byte] of changes) made[at] = byte;
      try {
        const read = decodeState(signed(made.subarray(0, made.length - cut)));
        expect(read.versions.length).toBe(read.workload.memoryBytes / PAGE);
      } catch (error) {
        refused++;
        expect(error).toEqual(coded);
      }
    }),
    { numRuns: 3000 },
  );
  expect(refused).toBeGreaterThan(100);
});

test.each<[string, (json: { workload: Record<string, unknown> } & Record<string, unknown>) => void]>([
  ['memory of half a page', ({ workload }) => Object.assign(workload, { memoryBytes: 2048 })],
  ['more memory than there is', ({ workload }) => Object.assign(workload, { memoryBytes: 2 ** 50 })],
  ['more memory than it has bits for', ({ workload }) => Object.assign(workload, { memoryBytes: 2 ** 30 })],
  ['a working set larger than the memory', ({ workload }) => Object.assign(workload, { workingSetBytes: 2 ** 23 })],
  ['a pattern of its own', ({ workload }) => Object.assign(workload, { pattern: 'constructor' })],
  ['a share above 1', ({ workload }) => Object.assign(workload, { writeShare: 1.5 })],
  ['a share that is no number', ({ workload }) => Object.assign(workload, { commonShare: null })],
  ['too many operations', ({ workload }) => Object.assign(workload, { operationsPerS: 1e12 })],
  [
    'a file by a name that depends on where we are',
    ({ workload }) => Object.assign(workload, { content: '../secret' }),
  ],
  ['a stream too few', ({ workload }) => Object.assign(workload, { vcpus: 5 })],
  ['streams without words', (json) => Object.assign(json, { streams: [{}, {}, {}, {}] })],
  [
    'a word too large',
    (json) => Object.assign((json.streams as { words: number[] }[])[0]!, { words: [1, 2, 3, 2 ** 32] }),
  ],
  ['no streams', (json) => Object.assign(json, { streams: 4 })],
  ['operations of no number', (json) => Object.assign(json, { operation: '7' })],
])('%s: refused', (_, change) => {
  const state = Buffer.from(encodeState(stateOf({ 3: 7 })));
  const end = 12 + state.readUInt32LE(8);
  const json = JSON.parse(state.toString('utf8', 12, end));
  change(json);
  const text = Buffer.from(JSON.stringify(json));
  const head = Buffer.from(state.subarray(0, 12));
  head.writeUInt32LE(text.length, 8);
  const made = signed(Buffer.concat([head, text, state.subarray(end)]));
  expect(() => decodeState(made)).toThrow(coded);
});
