// Connects to whoever keeps blocks, by what its address says: HOST:PORT is one of our own nodes, SCHEME://... a store, whose driver is loaded only when one
// is named. Anybody can add a driver (docs/stores.md).

import { AbdmError } from '../../bindings/errors.js';
import { storeScheme } from '../wire/address.js';
import type { Security } from '../wire/security.js';
import type { FoundMigration } from './bodies.js';
import type { FrameKeeper, KeeperOptions } from './keeper.js';
import { MamNode } from './node.js';

/** Speaks to stores of one kind. */
export interface Driver {
  /** @throws {AbdmError} as MamNode.connect; USAGE, for a source, if the store may forget or cannot take a frame: it says which setting to change. */
  connect(address: string, options: KeeperOptions): Promise<FrameKeeper>;
  /** What the store has of migrations with a VM of this name. @throws {AbdmError} */
  lookup(address: string, name: string, security: Security, timeoutMs: number): Promise<FoundMigration[]>;
}

const drivers = new Map<string, () => Promise<Driver>>();

/** Addresses that begin with `scheme://` are this driver's from now on; `load` is called when the first one is used, and again if it fails. */
export function addDriver(scheme: string, load: () => Promise<Driver>): void {
  drivers.set(scheme, load);
}

/** @throws {AbdmError} as MamNode.connect, and USAGE if nobody knows such stores. */
export async function dial(address: string, options: KeeperOptions): Promise<FrameKeeper> {
  const driver = await driverOf(address);
  return driver ? driver.connect(address, options) : MamNode.connect(address, options);
}

/** What is known there of migrations with a VM of this name. @throws {AbdmError} */
export async function lookUpAt(
  address: string,
  name: string,
  security: Security,
  timeoutMs?: number,
): Promise<FoundMigration[]> {
  const driver = await driverOf(address);
  return driver
    ? driver.lookup(address, name, security, timeoutMs ?? LOOKUP_MS)
    : MamNode.lookup(address, name, security, timeoutMs);
}

const LOOKUP_MS = 5_000;

async function driverOf(address: string): Promise<Driver | null> {
  const scheme = storeScheme(address);
  if (scheme === null) return null;
  const load = drivers.get(scheme);
  if (load) return load();
  const known = [...drivers.keys()].map((name) => `${name}://`).join(', ') || 'none';
  throw new AbdmError('USAGE', `nobody here speaks to stores like ${address}: known are ${known}`);
}
