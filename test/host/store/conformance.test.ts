// Every keeper of blocks is run through the same checks: our own node, and each kind of store, on real servers.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Intermediate, startIntermediate } from '#abdm/host/intermediate/intermediate.js';
import { addDriver, dial, lookUpAt } from '#abdm/host/mam/dial.js';
import { CONFORMANCE, type Conforming } from '#abdm/host/store/conformance.js';
import { lookUpName, parseStore, StoreKeeper } from '#abdm/host/store/index.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { keptBytes } from '../../../bench/faults/probe.js';
import { itemsOf, keysOf, type RedisProgram, Servers } from '../../../bench/stores/servers.js';
import { cluster, type Store } from '../../../bench/stores/stores.js';
import { missing } from '../../skipped.js';
import { MemoryStore } from './memory.js';

const servers = new Servers();

afterAll(() => servers.end());

function reach(address: string, replicas = 1): Conforming {
  return {
    connect: (options) => dial(address, { replicas, security: OPEN, ...options }),
    lookUp: (name) => lookUpAt(address, name, OPEN),
  };
}

/** All checks, side by side; afterwards nothing is left. */
function conforms(keepers: () => Conforming, left: () => number | Promise<number>): void {
  test.concurrent.each(CONFORMANCE)('$name', ({ run }) => run(keepers()));
  afterAll(async () => expect(await left()).toBe(0));
}

describe.concurrent('an engine of somebody else', () => {
  const store = new MemoryStore();
  const open = async () => store.open();
  addDriver('memory', async () => ({
    connect: (address, options) => StoreKeeper.connect(address, options, open),
    lookup: async (_address, name) => lookUpName(store.open(), name),
  }));

  conforms(
    () => reach('memory://here'),
    () => store.size,
  );
});

describe.concurrent('an intermediate', () => {
  let node: Intermediate;
  beforeAll(async () => {
    node = await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 64 * 2 ** 20 });
  });
  afterAll(() => node.close());

  conforms(
    () => reach(node.address),
    () => keptBytes(node.address),
  );
});

const PROGRAMS: [string, RedisProgram][] = [
  ['Valkey', 'valkey-server'],
  ['Redis', 'redis-server'],
];

describe.concurrent.each(PROGRAMS)('%s', (_name, program) => {
  describe.skipIf(missing(program)).each([1, 2])('in %i copies', (copies) => {
    let port: number;
    beforeAll(async () => {
      ({ port } = await servers.redis(program, '--repl-diskless-sync-delay', '0'));
      for (let i = 1; i < copies; i++) await servers.redis(program, '--replicaof', `127.0.0.1 ${port}`);
    });

    conforms(
      () => reach(parseStore(`valkey://127.0.0.1:${port}`)[0]!, copies),
      () => keysOf(port),
    );
  });
});

describe.skipIf(missing('valkey-server')).concurrent('a cluster of Valkey', () => {
  let store: Store;
  beforeAll(async () => {
    store = await cluster(servers);
  });

  conforms(
    () => reach(parseStore(store.urls[0]!)[0]!, 2),
    () => store.left(),
  );
});

describe.skipIf(missing('memcached')).concurrent('memcached', () => {
  let port: number;
  beforeAll(async () => {
    ({ port } = await servers.memcached('-M'));
  });

  conforms(
    () => reach(parseStore(`memcached://127.0.0.1:${port}`)[0]!),
    () => itemsOf(port),
  );
});
