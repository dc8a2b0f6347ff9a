// Says once a second that this node is here and what room it has, and at its end that it is leaving, so that nobody has to find out.

import { AbdmError } from '../../bindings/errors.js';
import { type Announcement, announcementKey, encodeAnnouncement } from '../mam/announcement.js';
import { type Sender, sendTo } from '../mam/places.js';
import { parseAddress } from '../wire/address.js';
import { PROTOCOL_VERSION } from '../wire/messages.js';
import type { Security } from '../wire/security.js';

const EVERY_MS = 1_000;

/** What the announcer is started with. */
export interface AnnouncerOptions {
  /** The node's, 32 hex digits. */
  readonly id: string;
  /** HOST:PORT under which others reach it. */
  readonly address: string;
  /** Multicast groups and HOST:PORT of peers, at least one. */
  readonly announcements: readonly string[];
  readonly security: Security;
  /** What is announced, asked each time. */
  readonly state: () => Pick<Announcement, 'freeBytes' | 'memoryBytes' | 'connections'>;
  /** Told when a place cannot be announced to, once until it can again. */
  readonly onFailure: (error: AbdmError) => void;
}

export class Announcer {
  readonly #options: AnnouncerOptions;
  readonly #key: Uint8Array | null;
  readonly #sender: Sender;
  readonly #startedMs = Date.now();
  readonly #load = new Load();
  readonly #timer: NodeJS.Timeout;
  #sequence = 0;

  private constructor(options: AnnouncerOptions, key: Uint8Array | null, sender: Sender) {
    this.#options = options;
    this.#key = key;
    this.#sender = sender;
    this.#timer = setInterval(() => this.#say(false), EVERY_MS);
    this.#say(false);
  }

  /**
   * Announces at once, and from then on.
   * @throws {AbdmError} `USAGE` if a place is none, if nobody could reach the announced address, or with certificates and no key.
   */
  static async start(options: AnnouncerOptions): Promise<Announcer> {
    const { host } = parseAddress(options.address, 1);
    if (host === '0.0.0.0' || host === '::') {
      const text = `nobody can connect to ${options.address}: say with --announce HOST:PORT where others reach this intermediate`;
      throw new AbdmError('USAGE', text);
    }
    const key = announcementKey(options.security);
    return new Announcer(options, key, await sendTo(options.announcements, key === null, host, options.onFailure));
  }

  /** Says goodbye; resolves when that is on its way. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#say(true);
    this.#sender.close();
  }

  #say(leaving: boolean): Promise<void> {
    const { id, address, state } = this.#options;
    const said = { id, address, leaving, ...state(), load: this.#load.take(), startedMs: this.#startedMs };
    // A number of its own for each place: who hears two of them would take the second copy for a replay.
    return this.#sender.say(() => {
      const sequence = ++this.#sequence;
      return encodeAnnouncement({ ...said, protocol: PROTOCOL_VERSION, sequence, clockMs: Date.now() }, this.#key);
    });
  }
}

/** CPU time of this process since it was last asked, as a share of one core. */
class Load {
  #cpu = process.cpuUsage();
  #atMs = performance.now();
  #share = 0;

  take(): number {
    const elapsedMs = performance.now() - this.#atMs;
    // Over less than this the figure would be noise.
    if (elapsedMs < EVERY_MS / 2) return this.#share;
    const { user, system } = process.cpuUsage(this.#cpu);
    this.#cpu = process.cpuUsage();
    this.#atMs += elapsedMs;
    this.#share = (user + system) / 1000 / elapsedMs;
    return this.#share;
  }
}
