// An intermediate: keeps frames for others, and knows nothing of what is in them. Everything that a client could make it hold is bounded:
// connections, migrations, frames, bytes kept, bytes waiting to be written; what one client does wrong ends its own connection only.

import { randomBytes } from 'node:crypto';
import { createFrameChecker } from '../../bindings/check.js';
import { AbdmError } from '../../bindings/errors.js';
import { formatAddress } from '../wire/address.js';
import type { Channel, ChannelOptions } from '../wire/channel.js';
import { listen } from '../wire/listen.js';
import { isSecured, OPEN, type Security } from '../wire/security.js';
import type { UsedTicket } from '../wire/tickets.js';
import { Announcer } from './announcer.js';
import { BankPool } from './banks.js';
import type { FrameCheck } from './frames.js';
import type { MigrationEvent } from './migration.js';
import { Migrations } from './migrations.js';
import type { Candidate } from './restore.js';
import { type Pass, Session, type SessionEvent } from './session.js';

/** What happens at an intermediate, for logs. */
export type IntermediateEvent =
  | SessionEvent
  | MigrationEvent
  | { readonly type: 'announce-failed'; readonly error: AbdmError };

/** What an intermediate is started with. */
export interface IntermediateOptions {
  /** HOST:PORT; port 0 for any free one. */
  readonly listen: string;
  /** What it keeps at most, in bytes: frames, rounded up to cache lines, and the index of them. 1 MiB to 127 GiB. */
  readonly memoryBytes: number;
  /** HOST:PORT under which others reach it, where that is not where it listens. */
  readonly announce?: string;
  /** Where it is announced once a second: multicast groups, and HOST:PORT of peers. Default: nowhere. */
  readonly announcements?: readonly string[];
  /** Default: none, and everything stays on loopback. */
  readonly security?: Security;
  /** Told of what happens. */
  readonly onEvent?: (event: IntermediateEvent) => void;
  /** The nodes that are there now, such as from a NodeIndex: one of them takes the blocks of one that is gone. Default: those known from chains. */
  readonly nodes?: () => readonly Candidate[];
  /** A migration whose source has not finished is dropped when nobody was connected for it for so long. Default 10 s. */
  readonly orphanMs?: number;
  /** A claim may be taken over when its claimant was not seen for so long. Default 30 s. */
  readonly claimStaleMs?: number;
  /** Each frame is passed through it before it is acknowledged. Default: it must be a frame, and whole. */
  readonly check?: FrameCheck;
  /** Default 1,024: other intermediates have one each, or two if they are secured, for every migration. */
  readonly maxConnections?: number;
  /** Default 32: each may need a bank of its own (banks.ts). */
  readonly maxMigrations?: number;
  readonly channel?: ChannelOptions;
}

/** What an intermediate keeps at the moment. */
export interface IntermediateStatus {
  readonly address: string;
  readonly memoryBytes: number;
  /** What is left of it. */
  readonly freeBytes: number;
  /** Frames kept, and their bytes. */
  readonly frames: number;
  readonly keptBytes: number;
  readonly connections: number;
  /** Connections of those who are not of the cluster. */
  readonly refused: number;
  readonly migrations: readonly { id: string; frames: number; bytes: number; connections: number }[];
}

/** An intermediate that runs. */
export interface Intermediate {
  /** 32 hex digits, random: started again it is another node. */
  readonly id: string;
  /** HOST:PORT under which it can be reached. */
  readonly address: string;
  /** What it keeps, and for whom. */
  status(): IntermediateStatus;
  /** Ends all connections, telling the clients so, and forgets all frames. */
  close(): Promise<void>;
}

/**
 * @throws {AbdmError} `USAGE` if an option is wrong, or if it cannot listen there.
 */
export async function startIntermediate(options: IntermediateOptions): Promise<Intermediate> {
  const { maxConnections = 1024, maxMigrations = 32, channel } = options;
  const { announcements = [], security = OPEN, nodes = () => [], orphanMs, claimStaleMs } = options;
  const check = options.check ?? (await createFrameChecker());
  const onEvent = options.onEvent ?? (() => {});
  const pool = new BankPool(options.memoryBytes);
  pool.prepare();
  const id = randomBytes(16).toString('hex');
  const shared = { own: id, pool, check, security, nodes, orphanMs, claimStaleMs, onEvent };
  const migrations = new Migrations(maxMigrations, shared);
  const listening = { ...channel, maxConnections, security };
  const issue = (pass: Pass) => (isSecured(security) ? listener.tickets.issue(pass) : null);
  const sessions = { ...shared, migrations, issue };
  const accept = (opened: Channel, ticket: UsedTicket | null) =>
    new Session(opened, sessions, ticket === null ? null : (ticket.context as Pass));
  const listener = await listen(options.listen, accept, listening);
  const address = options.announce ?? formatAddress(listener.address);
  const announcing = {
    id,
    address,
    announcements,
    security,
    state: () => ({ freeBytes: pool.freeBytes, memoryBytes: pool.memoryBytes, connections: listener.connections }),
    onFailure: (error: AbdmError) => onEvent({ type: 'announce-failed', error }),
  };
  const announcer =
    announcements.length === 0
      ? null
      : await Announcer.start(announcing).catch(async (error) => {
          await listener.close();
          throw error;
        });

  return {
    id,
    address,
    status: () => {
      const all = [...migrations].map(({ id, frames, connections }) => {
        return { id, frames: frames.count, bytes: frames.bytes, connections };
      });
      return {
        address,
        memoryBytes: pool.memoryBytes,
        freeBytes: pool.freeBytes,
        frames: all.reduce((sum, { frames }) => sum + frames, 0),
        keptBytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
        connections: listener.connections,
        refused: listener.counts.refused,
        migrations: all,
      };
    },
    close: async () => {
      await announcer?.close();
      await listener.close(new AbdmError('CANCELLED', `the intermediate ${address} is shutting down`));
      migrations.clear();
    },
  };
}
