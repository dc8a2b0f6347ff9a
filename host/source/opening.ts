// What is made before anything leaves: the migration's secrets, what it says of itself, the way to the nodes, and the divider.

import { randomBytes } from 'node:crypto';
import { KEY_BYTES } from '../../bindings/abi.js';
import { isGuestSource } from '../image/image.js';
import { Framer, type FramerOptions } from '../mam/framer.js';
import { NodeIndex } from '../mam/index.js';
import { Scatter, type ScatterOptions } from '../mam/scatter.js';
import { migrationSecret } from '../mam/secret.js';
import { isSecured, OPEN } from '../wire/security.js';
import type { AnnouncedImage, Announcement } from './control.js';
import { type EjectOptions, isDirect, isLive, isShort, modeOf } from './options.js';

/** Frames that are complete stay so long at nodes that nobody is connected to. */
const LEASE_MS = 600_000;

export interface Opened {
  /** 32 hex digits. */
  readonly migration: string;
  /** Null: everything goes straight to the destination. */
  readonly index: NodeIndex | null;
  readonly scatter: Scatter;
  readonly framer: Framer;
  /** What IMAGES says that does not change meanwhile. */
  readonly announcement: Omit<Announcement, 'nodes' | 'elapsedMs'>;
}

type Events = Required<Pick<ScatterOptions, 'onGiven' | 'onStored' | 'onVoid' | 'onLost' | 'onError' | 'leftBytes'>> &
  Pick<FramerOptions, 'onFree'>;

/** @throws {AbdmError} USAGE, IMAGE. */
export async function open(options: EjectOptions, { onFree, ...events }: Events): Promise<Opened> {
  const { to, park, vmKey, replicas = 1, security = OPEN, compress = 'lz4' } = options;
  const migration = randomBytes(16).toString('hex');
  const key = vmKey ? migrationSecret(vmKey, migration) : randomBytes(KEY_BYTES);
  const token = randomBytes(16).toString('hex');
  const sealed = isSecured(security);
  const direct = isDirect(options);
  const live = isLive(options);
  const size = { live, short: isShort(options) };
  const vms = options.vms.map(({ name, image }): AnnouncedImage => {
    const { bytes, pages, regions, setup } = image;
    const shape = { name, bytes, pages, regions: regions.map((region) => ({ ...region })), ...(setup && { setup }) };
    return isGuestSource(image) ? { ...shape, guest: true } : shape;
  });
  const index = direct ? null : await openIndex(options);
  try {
    const scatter = await Scatter.open({
      migration,
      security,
      key,
      index,
      manifest: { migration, sealed, replicas, vms },
      parked: park !== undefined,
      leaseMs: park?.leaseMs ?? LEASE_MS,
      token: to === undefined ? null : token,
      ...size,
      ...events,
    });
    const framer = await Framer.create({
      key,
      compress,
      sealed,
      withMeta: !direct && to !== undefined,
      ...size,
      onFree,
    });
    const secret = Buffer.from(key).toString('hex');
    const announcement = { mode: modeOf(options), direct, key: secret, sealed, replicas, token, vms };
    return { migration, index, scatter, framer, announcement };
  } catch (error) {
    index?.close();
    throw error;
  }
}

function openIndex({ security = OPEN, intermediates, announcements }: EjectOptions): Promise<NodeIndex> {
  return NodeIndex.open({
    security,
    ...(intermediates !== 'announced' && { listed: intermediates }),
    ...(announcements && { announcements }),
  });
}
