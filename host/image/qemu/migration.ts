// One migration of a QEMU to us: from its beginning, after which nothing but what comes before pages has left, to its end, or its giving up, when the guest
// may go on. That all has come is said as soon as it has, in post-copy: QEMU forgets nothing before it quits, and a guest that is to go on here all the same
// is continued.
//
//   start ... open -> pages, in rounds -> onState (pre-copy: it has converged, and stands still) -> onEnd
//         ... open, postCopy -> discards -> onState (post-copy) -> pages -> onEnd
//   giveUp, at any time

import { setTimeout as sleep } from 'node:timers/promises';
import { type AbdmError, asAbdmError } from '../../../bindings/errors.js';
import type { Configuration, DeviceState, RamBlock } from '../../qemu/format.js';
import {
  cancelMigration,
  migrate,
  migrationState,
  runState,
  setParameters,
  startPostCopy,
} from '../../qemu/monitor.js';
import type { QmpClient } from '../../qemu/qmp.js';
import type { PageHandler } from '../../qemu/ram.js';
import { returnPath } from '../../qemu/return-path.js';
import { type StreamHandler, StreamParser } from '../../qemu/stream.js';
import { printable } from '../../wire/json.js';
import { imageError } from '../image.js';
import { Inlet } from './inlet.js';
import { bandwidth } from './settings.js';

const START_MS = 30_000;
const END_MS = 30_000;
/** When no more has come for so long, none will. */
const QUIET_MS = 3_000;
const LOOK_MS = 5;
const ENDED = ['none', 'completed', 'failed', 'cancelled'];

export interface MigrationHandler extends PageHandler {
  onBlocks(blocks: readonly RamBlock[]): void;
  /** These bytes come once more. */
  onDiscard(block: number, start: number, bytes: number): void;
  /** The guest stands still. In post-copy its pages follow, else all of them have come. */
  onState(state: DeviceState, isPostCopy: boolean): void;
  /** All has come. */
  onEnd(): void;
  /** It has ended, or makes no sense, before all has come. */
  onFailed(error: AbdmError): void;
}

export class Migration {
  configuration: Configuration | null = null;
  blocks: readonly RamBlock[] = [];
  readonly #qmp: QmpClient;
  readonly #handler: MigrationHandler;
  readonly #parser: StreamParser;
  #inlet: Inlet | null = null;
  #hasStarted = false;
  #hasEnded = false;
  /** Nobody wants to hear of it any more. */
  #isOver = false;
  #isPostCopy = false;
  #isCut = false;
  #bytes = 0;
  #error: AbdmError | null = null;

  private constructor(qmp: QmpClient, handler: MigrationHandler) {
    this.#qmp = qmp;
    this.#handler = handler;
    const streamHandler: StreamHandler = {
      onConfiguration: (configuration) => {
        this.configuration = configuration;
      },
      onReturnPath: () => {},
      onPing: (value) => this.#inlet!.send(returnPath.pong(value)),
      onBlocks: (blocks) => {
        this.blocks = blocks;
        handler.onBlocks(blocks);
      },
      onPage: (block, offset, bytes, at) => {
        if (!this.#isOver) handler.onPage(block, offset, bytes, at);
      },
      onZero: (block, offset) => {
        if (!this.#isOver) handler.onZero(block, offset);
      },
      onDiscard: (block, start, bytes) => {
        if (!this.#isOver) handler.onDiscard(block, start, bytes);
      },
      onDeviceState: (state, isPostCopy) => {
        this.#isPostCopy = isPostCopy;
        if (!this.#isOver) handler.onState(state, isPostCopy);
      },
      onEnd: () => {
        this.#hasEnded = true;
        if (!this.#isOver) handler.onEnd();
        // From here on it only stands still, and can be continued, even if we are lost; waiting for this word, it never could.
        if (this.#isPostCopy) this.#inlet?.send(returnPath.shut(0));
      },
    };
    this.#parser = new StreamParser(streamHandler);
  }

  /**
   * Begins one; resolves when all is known that comes before pages, and none leaves any more. The guest goes on meanwhile.
   * @throws {AbdmError} IMAGE, PROTOCOL; it is given up then.
   */
  static async start(qmp: QmpClient, qmpPath: string, handler: MigrationHandler): Promise<Migration> {
    const migration = new Migration(qmp, handler);
    try {
      migration.#inlet = await Inlet.open(qmpPath, { onBytes: migration.#onBytes, onClosed: migration.#onClosed });
      await migrate(qmp, migration.#inlet.uri);
      await migration.#untilPagesCome();
      await setParameters(qmp, { 'max-bandwidth': bandwidth.closed });
      if (migration.#error) throw migration.#error;
      migration.#hasStarted = true;
      return migration;
    } catch (error) {
      // Why it has failed matters more than why it is not given up.
      await migration.giveUp().catch(() => {});
      throw error;
    }
  }

  /** As fast as it can. */
  async open(): Promise<void> {
    await setParameters(this.#qmp, { 'max-bandwidth': bandwidth.open });
  }

  hold(isHeld: boolean): void {
    this.#inlet?.hold(isHeld);
  }

  /** Of a guest that stands still: its state comes next, then its pages. */
  async postCopy(): Promise<void> {
    await startPostCopy(this.#qmp);
    // It sleeps until its slice of time is over, unless somebody asks for a page.
    this.request(0, 0);
  }

  /** The host's page that begins there should come next. */
  request(block: number, offset: number): void {
    const it = this.blocks[block]!;
    this.#inlet?.send(returnPath.request(it, offset, it.hostPageBytes));
  }

  /** All has come, or is about to: its guest only stands still, when this resolves, and nothing but a command lets it go on. @throws {AbdmError} IMAGE. */
  async complete(): Promise<void> {
    this.#isOver = true;
    await this.#untilSent();
    if (!this.#isPostCopy) this.#inlet?.send(returnPath.shut(0));
    await this.#untilEnded();
    this.close();
  }

  /**
   * The guest may go on: it does by itself, or stands still and can be continued, when this resolves. Post-copy cannot be cancelled (QEMU 10 refuses that, and
   * 7.2 now and then waits for another connection then, for ever), and has to be read to its end.
   * @throws {AbdmError} IMAGE.
   */
  async giveUp(): Promise<void> {
    this.#isOver = true;
    this.hold(false);
    try {
      if (!this.#isPostCopy) await cancelMigration(this.#qmp);
      else {
        await this.#untilSent();
        if (!this.#hasEnded) this.#inlet?.send(returnPath.shut(0));
      }
      await this.#untilEnded();
    } finally {
      this.close();
    }
  }

  /** Lets go of the connection. */
  close(): void {
    this.#isOver = true;
    this.#inlet?.close();
    this.#inlet = null;
  }

  #onBytes = (bytes: Uint8Array): void => {
    // What makes no sense is read to its end, so that QEMU does not have to wait, and dropped.
    this.#bytes += bytes.length;
    if (this.#error) return;
    try {
      this.#parser.feed(bytes);
    } catch (error) {
      this.#fail(asAbdmError(error));
    }
  };

  #onClosed = async (): Promise<void> => {
    this.#isCut = true;
    if (this.#isOver || this.#hasEnded) return;
    this.#fail(imageError(`QEMU has ended its migration: ${await this.#reason()}`, 'begin anew'));
  };

  #fail(error: AbdmError): void {
    if (this.#error) return;
    this.#error = error;
    this.hold(false);
    if (this.#hasStarted && !this.#isOver) this.#handler.onFailed(error);
  }

  async #untilPagesCome(): Promise<void> {
    const late = Date.now() + START_MS;
    while (!this.#parser.hasPages) {
      if (this.#error) throw this.#error;
      const { status } = await migrationState(this.#qmp);
      if (status === 'failed' || status === 'cancelled') {
        throw imageError(
          `QEMU's migration has not begun: ${await this.#reason()}`,
          'it must be able to connect to a socket here',
        );
      }
      if (Date.now() > late) throw imageError(`QEMU's migration has not begun for ${START_MS / 1000} s`, 'try again');
      await sleep(LOOK_MS);
    }
    if (this.#error) throw this.#error;
  }

  /** All that it has to send. */
  async #untilSent(): Promise<void> {
    let late = 0;
    for (let bytes = -1; !this.#hasEnded && !this.#isCut; ) {
      if (this.#bytes !== bytes) late = Date.now() + QUIET_MS;
      else if (Date.now() > late) return;
      bytes = this.#bytes;
      await sleep(LOOK_MS);
    }
  }

  async #untilEnded(): Promise<void> {
    const late = Date.now() + END_MS;
    for (;;) {
      const { status } = await migrationState(this.#qmp);
      // It says so a moment before it lets go of the guest.
      if (ENDED.includes(status) && (await runState(this.#qmp)).status !== 'finish-migrate') return;
      if (Date.now() > late) {
        throw imageError(
          `QEMU's migration does not end: it is ${printable(status)}`,
          "try 'migrate_cancel' in its monitor",
        );
      }
      await sleep(LOOK_MS);
    }
  }

  async #reason(): Promise<string> {
    try {
      const { status, reason } = await migrationState(this.#qmp);
      return printable(reason ?? `it is ${status}`);
    } catch (error) {
      return asAbdmError(error).message;
    }
  }
}
