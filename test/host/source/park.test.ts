// A source without a destination: whatever happens to the nodes before the exit, everything can be read back from them afterwards.
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { FileSource } from '#abdm/host/image/file.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { Ejection, type EjectOptions } from '#abdm/host/source/source.js';
import { seededPages } from '../../pages.js';
import { type Abdm, cleanUp, directory, intermediates } from '../cli/processes.js';
import { until } from '../wire/pair.js';
import { readBack } from './reader.js';

afterEach(cleanUp);

const vmKey = new Uint8Array(randomBytes(32));

/** Knows how many pages were read of it: what is divided again is read again. */
class CountedSource extends FileSource {
  pagesRead = 0;

  override read(pfn: number, pages: number, memory: Uint8Array, offset: number): void {
    this.pagesRead += pages;
    super.read(pfn, pages, memory, offset);
  }
}

/** A parked migration of an image of mixed pages that has not begun yet. */
function prepare(list: string, options: Partial<EjectOptions> = {}, pages = 4096, kinds?: string[]) {
  const path = join(directory(), 'in');
  writeFileSync(path, seededPages(pages, pages, kinds));
  const source = new CountedSource(path);
  const ejection = new Ejection({
    vms: [{ name: 'a', image: source }],
    park: { leaseMs: 60_000 },
    vmKey,
    intermediates: list.split(','),
    ...options,
  });
  return { ejection, source, image: readFileSync(path) };
}

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

/** Ends it as a crash would. */
async function kill(node: Abdm): Promise<void> {
  await node.stop('SIGKILL');
}

describe('a parked VM', () => {
  test.each([1, 2, 3])('can be read back from the nodes, %i copies of it', async (replicas) => {
    const { list } = await intermediates(3);
    const { ejection, source, image } = prepare(list, { replicas });
    const summary = await ejection.run();
    expect(summary).toMatchObject({ outcome: 'completed', reason: null, parked: true, replicas });
    expect(source.pagesRead).toBe(image.byteLength / 4096);
    expect(summary.exitTimeMs).toBeGreaterThan(0);
    const read = await readBack(list.split(','), 'a', vmKey);
    expect([read.names, read.replicas, read.direct]).toEqual([['a'], replicas, []]);
    expect(same(read.images[0]!, image)).toBe(true);
    // One of the last that looks late, as on a busy machine, goes to others too: so many more copies, and no record of them.
    let more = 0;
    for (const { kept, recorded } of read.copies.values()) {
      expect(recorded).toBe(replicas);
      expect(kept).toBeGreaterThanOrEqual(replicas);
      more += kept - replicas;
    }
    expect(more).toBeLessThanOrEqual(summary.resent! * replicas);
    const frames = summary.nodes.reduce((sum, node) => sum + node.frames, 0);
    expect(frames).toBeGreaterThanOrEqual(read.copies.size * replicas);
  });

  test('of no pages is one too', async () => {
    const { list } = await intermediates(1);
    const path = join(directory(), 'empty');
    writeFileSync(path, '');
    const { ejection } = prepare(list, { vms: [{ name: 'a', image: new FileSource(path) }] });
    expect((await ejection.run()).outcome).toBe('completed');
    expect((await readBack([list], 'a', vmKey)).images[0]).toHaveLength(0);
  });

  test('takes its name: another one of that name is refused, and nothing of it stays', async () => {
    const { list } = await intermediates(2);
    expect((await prepare(list).ejection.run()).outcome).toBe('completed');
    const summary = await prepare(list).ejection.run();
    expect(summary).toMatchObject({ outcome: 'aborted', reason: { code: 'USAGE', message: /\ba\b/ } });
    for (const address of list.split(',')) expect(await MamNode.lookup(address)).toHaveLength(1);
  });
});

describe('before the exit', () => {
  /** Something happens to the first node when a part of the image is divided. */
  async function disturbed(
    options: Partial<EjectOptions>,
    nodes: number,
    disturb: (node: Abdm) => unknown,
    memory = '256M',
  ) {
    const scene = await intermediates(nodes, memory);
    const { ejection, source, image } = prepare(scene.list, { rateBytesPerS: 20e6, ...options }, 4096, [
      'random',
      'text',
      'duplicate',
    ]);
    const running = ejection.run();
    await until(() => ejection.status().wireBytes > 3e6, 30_000);
    await disturb(scene.nodes[0]!);
    const [first, ...rest] = scene.list.split(',');
    const summary = await running;
    const keptByFirst = summary.nodes.find(({ address }) => address === first)!.frames;
    return { summary, image, rest, keptByFirst, dividedAgain: source.pagesRead - image.byteLength / 4096 };
  }

  test('a node that is killed, the only one with its frames: they are divided again', async () => {
    const { summary, image, rest, keptByFirst, dividedAgain } = await disturbed({ replicas: 1 }, 3, kill);
    expect(summary).toMatchObject({ outcome: 'completed', reason: null });
    expect(keptByFirst).toBeGreaterThan(0);
    expect(dividedAgain).toBeGreaterThanOrEqual(keptByFirst);
    expect(summary.resent).toBeGreaterThanOrEqual(keptByFirst);
    const read = await readBack(rest, 'a', vmKey);
    expect(same(read.images[0]!, image)).toBe(true);
  });

  test('a node that is killed where there are two copies: nothing is divided again', async () => {
    const { summary, image, rest, keptByFirst, dividedAgain } = await disturbed({ replicas: 2 }, 3, kill);
    expect(summary).toMatchObject({ outcome: 'completed', reason: null });
    expect(keptByFirst).toBeGreaterThan(0);
    expect(dividedAgain).toBe(0);
    const read = await readBack(rest, 'a', vmKey);
    expect(same(read.images[0]!, image)).toBe(true);
  });

  test('a node that is stopped: what it has not acknowledged goes elsewhere, and what it has is divided again', async () => {
    let stopped: Abdm | undefined;
    try {
      const { summary, image, rest, keptByFirst } = await disturbed({ replicas: 1 }, 3, (node) => {
        stopped = node;
        node.child.kill('SIGSTOP');
      });
      expect(summary).toMatchObject({ outcome: 'completed', reason: null });
      expect(keptByFirst).toBeGreaterThan(0);
      expect(summary.resent).toBeGreaterThanOrEqual(keptByFirst);
      const read = await readBack(rest, 'a', vmKey);
      expect(same(read.images[0]!, image)).toBe(true);
    } finally {
      stopped?.child.kill('SIGCONT');
    }
  });

  test('all nodes but too few are gone: it waits, and says what it waited for', async () => {
    const { summary, rest } = await disturbed({ replicas: 2 }, 2, kill);
    expect(summary).toMatchObject({ outcome: 'aborted', reason: { code: 'NO_ROOM', message: /fewer than 2 nodes/ } });
    expect(await MamNode.lookup(rest[0]!)).toEqual([]);
  });
});
