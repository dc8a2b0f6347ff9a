// Who else can keep frames: stores that people already run (docs/stores.md). A store's driver is loaded when one is first used.
//
//   keeper.ts      a store as a keeper of blocks      <- head.ts, contents.ts, claim.ts, presence.ts, names.ts, records.ts
//   engine.ts      what a store has to do for that    <- redis/, memcached/

import { addDriver, type Driver } from '../mam/dial.js';
import { checkReach } from '../wire/connect.js';
import { OPEN } from '../wire/security.js';
import { SCHEMES, type StoreAddress, storeAddress } from './address.js';
import type { Engine, EngineOptions } from './engine.js';
import { StoreKeeper } from './keeper.js';
import { lookUpName } from './names.js';

export { parseStore } from './address.js';
export type { Added, Engine, EngineOptions, ReadTarget } from './engine.js';
export { StoreKeeper } from './keeper.js';
export { lookUpName } from './names.js';

/** Keeps frames wherever there is an engine: `open` connects to a store of some kind. */
function driverOf(open: (address: StoreAddress, options: EngineOptions) => Promise<Engine>): Driver {
  return {
    connect: async (text, options) => {
      const address = storeAddress(text);
      for (const host of address.hosts) checkReach(host, options.security ?? OPEN);
      return StoreKeeper.connect(text, options, (engine) => open(address, engine));
    },
    lookup: async (text, name, security, timeoutMs) => {
      const address = storeAddress(text);
      for (const host of address.hosts) checkReach(host, security);
      const engine = await open(address, { copies: 1, timeoutMs, onOpen: () => {} });
      try {
        return await lookUpName(engine, name);
      } finally {
        engine.close();
      }
    },
  };
}

for (const scheme of SCHEMES) {
  addDriver(scheme, async () => {
    if (scheme === 'memcached') return driverOf((await import('./memcached/engine.js')).openMemcached);
    return driverOf((await import('./redis/engine.js')).openRedis);
  });
}
