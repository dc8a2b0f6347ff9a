// Every keeper of blocks is run through the same checks: our own node, and each kind of store, on real servers.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Intermediate, startIntermediate } from '#abdm/host/intermediate/intermediate.js';
import { addDriver, dial, lookUpAt } from '#abdm/host/mam/dial.js';
import { CONFORMANCE, type Conforming } from '#abdm/host/store/conformance.js';
import { lookUpName, parseStore, StoreKeeper } from '#abdm/host/store/index.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { MemoryStore } from './memory.js';
import { has, itemsOf, keysOf, Servers } from './servers.js';

const servers = new Servers();

afterAll(() => servers.end());

function reach(address: string, replicas = 1): Conforming {
  return {
    connect: (options) => dial(address, { replicas, security: OPEN, ...options }),
    lookUp: (name) => lookUpAt(address, name, OPEN),
  };
}

describe('an engine of somebody else', () => {
  const store = new MemoryStore();
  const open = async () => store.open();
  addDriver('memory', async () => ({
    connect: (address, options) => StoreKeeper.connect(address, options, open),
    lookup: async (_address, name) => lookUpName(store.open(), name),
  }));
  afterEach(() => expect(store.size).toBe(0));

  test.each(CONFORMANCE)('$name', ({ run }) => run(reach('memory://here')));
});

describe('an intermediate', () => {
  let node: Intermediate;
  beforeAll(async () => {
    node = await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 64 * 2 ** 20 });
  });
  afterAll(() => node.close());

  test.each(CONFORMANCE)('$name', ({ run }) => run(reach(node.address)));
});

describe.skipIf(!has('redis-server'))('Valkey and Redis', () => {
  let port: number;
  beforeAll(async () => {
    ({ port } = await servers.redis());
  });
  afterEach(() => expect(keysOf(port)).toBe(0));

  test.each(CONFORMANCE)('$name', ({ run }) => run(reach(parseStore(`valkey://127.0.0.1:${port}`)[0]!)));
});

describe.skipIf(!has('redis-server'))('Valkey and Redis, with a replica', () => {
  let port: number;
  beforeAll(async () => {
    ({ port } = await servers.redis('--repl-diskless-sync-delay', '0'));
    await servers.redis('--replicaof', `127.0.0.1 ${port}`);
  });
  afterEach(() => expect(keysOf(port)).toBe(0));

  test.each(CONFORMANCE)('$name', ({ run }) => run(reach(parseStore(`redis://127.0.0.1:${port}`)[0]!, 2)));
});

describe.skipIf(!has('redis-server'))('a cluster of Valkey and Redis', () => {
  let ports: number[];
  beforeAll(async () => {
    ports = (await servers.cluster()).map(({ port }) => port);
  });
  afterEach(() => expect(ports.map(keysOf)).toEqual(ports.map(() => 0)));

  test.each(CONFORMANCE)('$name', ({ run }) => {
    return run(reach(parseStore(`valkey://127.0.0.1:${ports[1]},127.0.0.1:${ports[0]}`)[0]!, 2));
  });
});

describe.skipIf(!has('memcached'))('memcached', () => {
  let port: number;
  beforeAll(async () => {
    ({ port } = await servers.memcached('-M'));
  });
  afterEach(async () => expect(await itemsOf(port)).toBe(0));

  test.each(CONFORMANCE)('$name', ({ run }) => run(reach(parseStore(`memcached://127.0.0.1:${port}`)[0]!)));
});
