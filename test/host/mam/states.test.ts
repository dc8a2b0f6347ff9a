// The execution states of VMs at the nodes: as many copies as of frames, whatever becomes of the nodes, and read by nobody without the key.
import { randomBytes } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import { STATE_ID } from '#abdm/host/mam/catalog.js';
import { readState } from '#abdm/host/mam/catalog-reader.js';
import { Cluster } from '../intermediate/cluster.js';
import { pattern, same, sleep, until } from '../wire/pair.js';
import { Fakes, holding } from './fakes.js';
import { frame, key, never, open, range, reading } from './scattered.js';

const cluster = new Cluster();
const fakes = new Fakes();

afterEach(async () => {
  await cluster.end();
  await fakes.end();
});

const parts = async (node: { address: string }) => (await cluster.listed(node)).filter((id) => id >= STATE_ID);
const read = (nodes: readonly { address: string }[], vm: number, by = key) =>
  reading(nodes, (keepers) => readState(by, keepers, vm));

test('a state is at as many nodes as frames are, in parts, and is read from any of them', async () => {
  const nodes = await cluster.nodes(4);
  const { scatter } = await open(nodes, {}, 2);
  const states = [pattern(900_001, 1), pattern(1, 2)];
  await Promise.all(states.map((state, vm) => scatter.putState(vm, state)));
  const ids = (await Promise.all(nodes.map(parts))).flat().sort((a, b) => a - b);
  const [first, second] = [2 ** 50, 2 ** 50 + 2 ** 16];
  expect(ids).toEqual([...range(4).map((i) => first + i - 1), second].flatMap((id) => [id, id]));
  for (const node of nodes) {
    const others = nodes.filter((other) => other !== node);
    for (const [vm, state] of states.entries()) expect(same((await read(others, vm))!, state)).toBe(true);
  }
  expect(await read(nodes, 2)).toBe(null);
  expect(await read([], 0)).toBe(null);
  await expect(read(nodes, 1, randomBytes(32))).rejects.toMatchObject({ code: 'FRAME_TAG' });
  // A destination that looks for the index does not stumble over it.
  scatter.put(frame(1));
  await scatter.finish(never, () => {});
});

test('a state is put again where all that had a part of it are gone, before it is settled', async () => {
  const nodes = [await cluster.process(), await cluster.process()];
  const { scatter } = await open(nodes);
  const state = pattern(5_000_000, 3);
  await scatter.putState(0, state);
  const [here, there] = [await parts(nodes[0]!), await parts(nodes[1]!)];
  expect([here.length > 3, there.length > 3, here.length + there.length]).toEqual([true, true, 20]);
  await nodes[0]!.kill();
  await until(() => scatter.mam.members.length === 1);
  await scatter.settle(never);
  expect(same((await read([nodes[1]!], 0))!, state)).toBe(true);
});

test('what is settled has its states at the nodes', async () => {
  const { held, answer } = holding((id) => id >= STATE_ID);
  const { scatter } = await open([await fakes.node(answer)]);
  let put = false;
  const putting = scatter.putState(0, pattern(300_000, 4)).then(() => {
    put = true;
  });
  let finished = false;
  const finishing = scatter.settle(never).then(() => {
    finished = true;
  });
  await until(() => held.length === 2);
  held[0]!.store();
  await sleep(100);
  expect([put, finished]).toEqual([false, false]);
  held[1]!.store();
  await Promise.all([putting, finishing]);
});

test('a state is put once, is not empty, and not longer than 64 MiB; nobody waits for one that will never be there', async () => {
  const { held, answer } = holding((id) => id >= STATE_ID);
  const { scatter } = await open([await fakes.node(answer)]);
  for (const bytes of [0, 2 ** 26 + 1]) {
    await expect(scatter.putState(0, new Uint8Array(bytes))).rejects.toMatchObject({ code: 'IMAGE' });
  }
  const put = scatter.putState(0, pattern(9, 5));
  await expect(scatter.putState(0, pattern(9, 6))).rejects.toMatchObject({ code: 'INTERNAL' });
  await until(() => held.length === 1);
  scatter.end();
  await expect(put).rejects.toMatchObject({ code: 'CANCELLED' });
});
