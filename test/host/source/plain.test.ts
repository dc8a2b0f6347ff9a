// Whole migrations where connections are secured: every way, to the nodes and to the destination, goes through the hands of somebody who records, and
// may disturb, what is not encrypted.
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, onTestFinished, test } from 'vitest';
import { Destination } from '#abdm/host/destination/destination.js';
import { FileSource } from '#abdm/host/image/file.js';
import { FileSink } from '#abdm/host/image/filesink.js';
import { startIntermediate } from '#abdm/host/intermediate/intermediate.js';
import { Ejection } from '#abdm/host/source/source.js';
import type { Security } from '#abdm/host/wire/security.js';
import { Authority } from '../../certificates.js';
import { seededPages } from '../../pages.js';
import { cleanUp, directory } from '../cli/processes.js';
import { disturbing, Way } from '../wire/way.js';

afterEach(cleanUp);

const VM = 'a-name-that-nobody-should-read';
const VM_KEY = new Uint8Array(randomBytes(32));
const KEY: Security = { clusterKey: new Uint8Array(randomBytes(32)), tls: null };

/** `direct`: frames go to the destination too; else it takes so little that the nodes get nearly all. */
async function world(security: Security, pages: number, destinationRate: number | undefined) {
  const dir = directory();
  const path = join(dir, 'in');
  const image = seededPages(pages, pages, ['random', 'text']);
  writeFileSync(path, image);
  const ways: Way[] = [];
  const nodes = await Promise.all(
    [1, 2, 3].map(() => startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 128 * 2 ** 20, security })),
  );
  for (const { address } of nodes) ways.push(await Way.to(address));
  const merging = await Destination.start({
    listen: '127.0.0.1:0',
    images: [{ name: VM, open: ({ bytes }: { bytes: number }) => new FileSink(join(dir, 'out'), bytes) }],
    security,
    ...(destinationRate !== undefined && { rateBytesPerS: destinationRate }),
  });
  const there = await Way.to(merging.address!);
  onTestFinished(async () => {
    merging.cancel();
    await merging.done;
    await Promise.all(nodes.map((node) => node.close()));
    await Promise.all([...ways, there].map((way) => way.close()));
  });
  const run = async (replicas: number) => {
    const source = await new Ejection({
      vms: [{ name: VM, image: new FileSource(path) }],
      vmKey: VM_KEY,
      to: there.address,
      intermediates: ways.map(({ address }) => address),
      security,
      replicas,
      rateBytesPerS: 30e6,
    }).run();
    const merged = await merging.done;
    expect([source.reason, merged.reason]).toEqual([null, null]);
    expect([source.outcome, merged.outcome]).toEqual(['completed', 'completed']);
    expect(Buffer.compare(readFileSync(join(dir, 'out')), image)).toBe(0);
    expect(nodes.map((node) => node.status().frames)).toEqual([0, 0, 0]);
    return source;
  };
  return { nodes, ways, there, image, run };
}

test.each([
  ['a key', () => KEY],
  [
    'certificates',
    () => {
      const authority = new Authority('cluster');
      return { clusterKey: null, tls: { ...authority.issue('node'), ca: authority.cert } };
    },
  ],
])('with %s, frames go over plain connections, sealed, and names and keys do not', async (_, secure) => {
  const security = secure();
  const { ways, there, image, run } = await world(security, 4096, 8e6);
  const { source: wireBytes } = (await run(2)).wireBytes;
  const plain = Buffer.concat([...ways, there].map((way) => way.heard('plain')));
  const encrypted = [...ways, there].reduce((sum, way) => sum + way.heard('tls').byteLength, 0);
  // What the source sends; what nodes forward, and what is fetched from them, is the more the less goes straight.
  expect(plain.byteLength).toBeGreaterThan(wireBytes!);
  expect(encrypted).toBeLessThan(0.05 * plain.byteLength);
  for (const way of [...ways, there]) expect(way.heard('plain').byteLength).toBeGreaterThan(100_000);
  const secrets = [VM_KEY, security.clusterKey ?? VM_KEY].flatMap((key) => [
    Buffer.from(key),
    Buffer.from(key).toString('hex'),
  ]);
  for (const secret of [VM, 'token', 'secret', ...secrets]) expect(plain.includes(secret), String(secret)).toBe(false);
  for (let at = 100; at < image.byteLength; at += image.byteLength / 32) {
    expect(plain.includes(Buffer.from(image.subarray(at, at + 200)))).toBe(false);
  }
});

test('disturbed on plain connections, a migration goes on over new ones, and elsewhere, and is bit-exact', async () => {
  const { ways, there, run } = await world(KEY, 4096, 8e6);
  for (const way of [...ways, there]) way.meddle = disturbing(6, 200_000);
  // At one of them nothing ever gets far.
  ways[2]!.meddle = disturbing(Number.POSITIVE_INFINITY, 100_000);
  await run(2);
  for (const way of ways) expect(way.connections.plain).toBeGreaterThan(3);
});
