// The destination: takes a migration in. It listens, lets one source in, hears what is coming, and merges it (session.ts): frames are fetched from
// the nodes while the source is still dividing (gather.ts), or come straight from the source (frames.ts).
//
// It is done when the source has said how many frames there were, all of them are merged, every page of every image is in place, and
// the images are visible under their names. Then the nodes are told to forget the frames.
//
// What may go wrong, and what becomes of it:
//   the source is gone before it said DIVIDED   aborted; the source still owns the VM
//   a node's connection breaks                  a new one is tried; if that fails, the frames there are lost
//   a frame is damaged                          fetched again, twice
//   an image cannot be written                  aborted
// Whatever ends it early removes the partial images, tells the source why if it is still there, and tells the nodes to forget the frames. Once the
// source has left, what is lost then is lost: the summary says how many pages.

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { reasonOf, type Status, type Summary, usage } from '../summary.js';
import { type Address, formatAddress } from '../wire/address.js';
import type { Channel, ChannelHandler } from '../wire/channel.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import { type Listener, listen } from '../wire/listen.js';
import { type MessageHeader, MessageType, messageName, PROTOCOL_VERSION } from '../wire/messages.js';
import { RateLimit } from '../wire/rate.js';
import type { Security } from '../wire/security.js';
import { type Announced, readAnnouncement } from './announcement.js';
import type { ImageTarget } from './images.js';
import { Session } from './session.js';

/** What a destination is started with. */
export interface DestinationOptions {
  /** HOST:PORT, port 0 for any free one. */
  listen?: Address | string;
  /** Instead of listening for a source: VMs that were parked, and the secret that they were parked with. */
  parked?: { vmKey: Uint8Array; intermediates: readonly string[] | 'announced' };
  /** Where announcements are heard: HOST:PORT. */
  announcements?: readonly string[];
  images: readonly ImageTarget[];
  /** Bytes of frames a second, at most. */
  rateBytesPerS?: number;
  security?: Security;
  /** Called when the source has said what it will send. */
  onImages?(images: Announced['vms']): void;
}

/** How often the source is told how far the merge is. */
const REPORT_MS = 250;

const NO_PAGES = { zeroPages: 0, duplicatePages: 0, compressedPages: 0, normalPages: 0 };

/** A migration as its destination sees it: `start`, then wait for `done`. */
export class Destination {
  /** Resolves when the migration is over, however it ended. */
  readonly done: Promise<Summary>;
  readonly #options: DestinationOptions;
  readonly #limit: RateLimit;
  #listener!: Listener;
  #phase: Status['phase'] = 'waiting';
  #migration = '';
  #control: Channel | null = null;
  /** Bytes received on the control channel, when it is gone. */
  #controlBytes = 0;
  #announced: Announced | null = null;
  #session: Session | null = null;
  #startedAt = 0;
  #totalMs: number | null = null;
  /** The source has said that it divided everything: from now on this host owns the VM. */
  #handedOver = false;
  #report: NodeJS.Timeout | undefined;
  /** Resolves when the control channel is gone; there may be none. */
  #controlGone: Promise<void> = Promise.resolve();
  #over = false;
  #end!: (error: AbdmError | null) => void;

  private constructor(options: DestinationOptions) {
    this.#options = options;
    this.#limit = new RateLimit(options.rateBytesPerS);
    const ended = new Promise<AbdmError | null>((resolve) => {
      this.#end = (error) => {
        this.#over = true;
        resolve(error);
      };
    });
    this.done = ended.then((error) => this.#finish(error));
  }

  /** Begins to listen. @throws {AbdmError} USAGE if that is not possible. */
  static async start(options: DestinationOptions): Promise<Destination> {
    const destination = new Destination(options);
    if (options.listen === undefined) throw new AbdmError('USAGE', 'a destination needs to know where to listen');
    destination.#listener = await listen(options.listen, () => destination.#newcomer());
    return destination;
  }

  /** HOST:PORT where it listens; null if it does not. */
  get address(): string | null {
    return formatAddress(this.#listener.address);
  }

  /** The source has left: the VM's state is here and at the nodes, and nowhere else. */
  get handedOver(): boolean {
    return this.#handedOver;
  }

  /** How far it has come. */
  status(): Status {
    const mergedBytes = this.#session?.mergedBytes ?? 0;
    return {
      phase: this.#phase,
      doneBytes: mergedBytes,
      totalBytes: this.#announced?.vms.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0,
      wireBytes: this.#session?.frameBytes ?? 0,
      mergedBytes,
      rateBytesPerS: this.#limit.bytesPerS,
      nodes: this.#session?.shares ?? [],
    };
  }

  /** Bytes of frames a second from now on; null: no limit. */
  setRate(bytesPerS: number | null): void {
    this.#limit.set(bytesPerS);
  }

  /** Ends it as aborted. */
  cancel(reason = 'cancelled'): void {
    this.#end(new AbdmError('CANCELLED', reason));
  }

  /** A new connection: its first message says what it is for. */
  #newcomer(): ChannelHandler {
    return {
      onMessage: (header, body, channel) => {
        if (header.type !== MessageType.HELLO) {
          throw new AbdmError('PROTOCOL', `${messageName(header.type)} came first, where HELLO must`);
        }
        const hello = decodeJson(body, 'HELLO');
        need.integer(hello, 'protocol', 'HELLO', PROTOCOL_VERSION, PROTOCOL_VERSION);
        const migration = need.string(hello, 'migration', 'HELLO', 32);
        if (!/^[0-9a-f]{32}$/.test(migration))
          throw new AbdmError('PROTOCOL', 'HELLO: `migration` is not 32 hex digits');
        if (need.oneOf(hello, 'role', 'HELLO', ['source', 'frames']) === 'source') this.#letIn(migration, channel);
        else if (migration === this.#migration && this.#announced?.direct && this.#session) {
          channel.handler = this.#session.lane();
        } else throw new AbdmError('PROTOCOL', 'frames of this migration are not expected here');
        const room = { freeBytes: Number.MAX_SAFE_INTEGER, memoryBytes: Number.MAX_SAFE_INTEGER };
        channel.send(MessageType.WELCOME, 0, encodeJson({ protocol: PROTOCOL_VERSION, role: 'destination', ...room }));
      },
    };
  }

  #letIn(migration: string, channel: Channel): void {
    if (this.#migration !== '') throw new AbdmError('PROTOCOL', 'another migration is under way here');
    this.#migration = migration;
    this.#control = channel;
    let markGone: () => void;
    this.#controlGone = new Promise((resolve) => {
      markGone = resolve;
    });
    channel.handler = {
      onMessage: (header, body) => this.#onControl(header, body),
      onClose: (error) => {
        markGone();
        this.#control = null;
        this.#controlBytes = channel.bytesIn;
        if (this.#handedOver) return;
        this.#end(error ?? new AbdmError('PEER_GONE', 'the source ended the connection before all was divided'));
      },
    };
  }

  #onControl(header: MessageHeader, body: Uint8Array): void {
    try {
      const session = this.#handedOver ? null : this.#session;
      if (header.type === MessageType.IMAGES && !this.#announced) void this.#prepare(readAnnouncement(body));
      else if (header.type === MessageType.RECORDS && session) session.onRecords(body);
      else if (header.type === MessageType.DIVIDED && session) {
        const frames = need.integer(decodeJson(body, 'DIVIDED'), 'frames', 'DIVIDED');
        this.#handedOver = true;
        this.#control?.send(MessageType.DIVIDED, 0, encodeJson({}));
        session.divided(frames);
      } else throw new AbdmError('PROTOCOL', `the source sent ${messageName(header.type)}, which is not its turn`);
    } catch (error) {
      this.#end(asAbdmError(error));
    }
  }

  /** Opens the images, reaches the nodes, and tells the source that it may begin. */
  async #prepare(announced: Announced): Promise<void> {
    this.#announced = announced;
    this.#startedAt = performance.now() - announced.elapsedMs;
    this.#phase = 'preparing';
    const { images, onImages } = this.#options;
    try {
      onImages?.(announced.vms);
      const session = await Session.open(this.#migration, announced, images, this.#limit, this.#end);
      if (this.#over) {
        await session.discard();
        return session.forget();
      }
      this.#session = session;
    } catch (error) {
      return this.#end(asAbdmError(error));
    }
    this.#phase = 'gathering';
    this.#control?.send(MessageType.READY, 0, encodeJson({}));
    this.#report = setInterval(() => {
      this.#control?.send(MessageType.MERGED, 0, encodeJson({ mergedBytes: this.#session!.mergedBytes }));
    }, REPORT_MS);
  }

  async #finish(error: AbdmError | null): Promise<Summary> {
    clearInterval(this.#report);
    const session = this.#session;
    let reason = error;
    if (session && !reason) {
      this.#phase = 'committing';
      try {
        await session.commit();
        this.#totalMs = performance.now() - this.#startedAt;
      } catch (cause) {
        reason = asAbdmError(cause);
      }
    }
    const controlBytes = this.#control?.bytesIn ?? this.#controlBytes;
    if (reason) {
      if (this.#handedOver)
        reason = new AbdmError(reason.code, `${reason.message}; ${session!.missingPages} pages are lost`);
      this.#control?.fail(reason);
      await session?.discard();
      // The source first: it would have frames refused otherwise, and take that for the reason.
      await this.#controlGone;
    } else this.#control?.end();
    await session?.forget();
    const summary = this.#summary(reason, controlBytes);
    await this.#listener.close();
    this.#phase = 'done';
    return summary;
  }

  #summary(error: AbdmError | null, controlBytes: number): Summary {
    const session = this.#session;
    return {
      type: 'summary',
      role: 'destination',
      outcome: error ? 'aborted' : 'completed',
      reason: reasonOf(error),
      mode: 'stop',
      direct: this.#announced?.direct ?? false,
      vms: (this.#announced?.vms ?? []).map(({ name, bytes, pages }, vm) => ({
        name,
        imageBytes: bytes,
        pages,
        ...(session?.merger.counts[vm] ?? NO_PAGES),
        exitTimeMs: null,
        totalMigrationTimeMs: this.#totalMs,
        // In mode stop the VM stands still from beginning to end.
        downtimeMs: this.#totalMs,
        verified: error === null,
      })),
      exitTimeMs: null,
      totalMigrationTimeMs: this.#totalMs,
      wireBytes: { source: null, destination: (session?.frameBytes ?? 0) + controlBytes },
      nodes: session?.shares ?? [],
      ...usage(),
    };
  }
}
