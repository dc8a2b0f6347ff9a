// The proxies as the runner sees them.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Answer, Command, Counts, Rule, Tamper } from './rule.js';

const MAIN = fileURLToPath(new URL('main.js', import.meta.url));

export class Proxies {
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, { resolve(answer: Answer): void; reject(error: Error): void }>();
  #calling = 0;

  constructor() {
    this.#child = fork(MAIN, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#child.on('message', (answer: Answer) => {
      const call = this.#calls.get(answer.call)!;
      this.#calls.delete(answer.call);
      if (answer.error === undefined) call.resolve(answer);
      else call.reject(new Error(`proxy: ${answer.error}`));
    });
    this.#child.on('exit', () => {
      for (const { reject } of this.#calls.values()) reject(new Error('the proxies have ended'));
    });
  }

  /** A new proxy in front of HOST:PORT. */
  async add(target: string): Promise<ProxyHandle> {
    const { added } = await this.#call({ add: { target } });
    const { proxy, address } = added!;
    return { address, set: async (rule) => void (await this.#call({ set: { proxy, rule } })) };
  }

  /** The connection on which the n-th frame from now passes is reset behind it. */
  async resetAt(n: number): Promise<void> {
    await this.#call({ resetAt: n });
  }

  /** The node that gives the n-th answer to GET from now lies from then on. */
  async lie(how: Tamper, answer: number): Promise<void> {
    await this.#call({ liar: { how, answer } });
  }

  async counts(): Promise<Counts> {
    return (await this.#call({ counts: true })).counts!;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const exited = once(this.#child, 'exit');
    if (this.#child.connected) this.#child.disconnect();
    await exited;
  }

  #call(command: Omit<Command, 'call'>): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const call = this.#calling++;
      this.#calls.set(call, { resolve, reject });
      this.#child.send({ call, ...command }, (error) => error && reject(error));
    });
  }
}

export interface ProxyHandle {
  /** HOST:PORT to give to others instead of the target's. */
  readonly address: string;
  set(rule: Rule): Promise<void>;
}
