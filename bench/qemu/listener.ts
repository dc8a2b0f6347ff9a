// A player (player.ts) as seen by who has started it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Heard, sha256Of } from './stream.js';

const PLAYER = fileURLToPath(new URL('player.js', import.meta.url));

export interface Played {
  readonly bytes: number;
  /** Of what came, and of so many bytes of the stream. */
  readonly sha256: string;
  readonly expectedSha256: string;
  /** Every byte was the one that it must be, and the connection held. */
  readonly isRight: boolean;
}

export class Listener {
  readonly #child: ChildProcess;
  readonly #heard: Heard[] = [];
  readonly #ended: Promise<unknown>;
  #wakes: (() => void)[] = [];

  /** @param onHeard told of each line, as it comes. */
  constructor(launcher: readonly string[], address: string, onHeard: (heard: Heard) => void = () => {}) {
    const [program, ...before] = launcher;
    this.#child = spawn(program!, [...before, process.execPath, PLAYER, address], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: this.#child.stdout! });
    lines.on('line', (line) => {
      const heard = JSON.parse(line) as Heard;
      this.#heard.push(heard);
      onHeard(heard);
      for (const wake of this.#wakes.splice(0)) wake();
    });
    this.#ended = Promise.all([once(this.#child, 'close'), once(lines, 'close')]).then(() => {
      for (const wake of this.#wakes.splice(0)) wake();
    });
  }

  /** Until it plays. */
  async playing(): Promise<void> {
    while (!this.#heard.some(({ type }) => type === 'playing')) {
      if (this.#child.exitCode !== null) throw new Error(`the stream does not begin: ${JSON.stringify(this.#heard)}`);
      await new Promise<void>((resolve) => this.#wakes.push(resolve));
    }
  }

  /** The longest silence that ended between these times. */
  longestSilenceMs(fromMs: number, toMs: number): number {
    const silences = this.#heard.flatMap((heard) =>
      heard.type === 'silence' && heard.atMs >= fromMs && heard.atMs <= toMs ? [heard.ms] : [],
    );
    return Math.max(0, ...silences);
  }

  /** Ends it, and says what it was. */
  async stop(): Promise<Played> {
    this.#child.stdin!.end();
    await this.#ended;
    const played = this.#heard.find((heard) => heard.type === 'played');
    if (!played) throw new Error('the player ended without a word');
    const { bytes, sha256, broken } = played;
    const expectedSha256 = sha256Of(bytes);
    return { bytes, sha256, expectedSha256, isRight: broken === null && bytes > 0 && sha256 === expectedSha256 };
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
