// What is set at a QEMU for a migration, and put back afterwards.

import { AbdmError } from '../../../bindings/errors.js';
import { capabilities, parameters, setCapabilities, setParameters } from '../../qemu/monitor.js';
import type { QmpClient } from '../../qemu/qmp.js';
import { need } from '../../wire/json.js';

const CAPABILITIES = ['return-path', 'postcopy-ram'];
const PARAMETERS = ['max-bandwidth', 'max-postcopy-bandwidth', 'downtime-limit'];

/** Bytes per second; QEMU spreads it over slices of 100 ms. */
export const bandwidth = {
  /** More than what comes before pages in one slice, or it would wait for the next one; with it a page or two come. */
  opening: 64 * 1024,
  /** Less than a section without a page: none comes. (A byte less, and there is no limit.) */
  closed: 10,
  /** More than there is. */
  open: 2 ** 40,
} as const;

export class Settings {
  readonly #qmp: QmpClient;
  readonly #capabilities: Record<string, boolean>;
  readonly #parameters: Record<string, number>;
  #areApplied = false;

  private constructor(qmp: QmpClient, states: Record<string, boolean>, values: Record<string, number>) {
    this.#qmp = qmp;
    this.#capabilities = states;
    this.#parameters = values;
  }

  /** As they are now. */
  static async of(qmp: QmpClient): Promise<Settings> {
    const states = await capabilities(qmp);
    const values = await parameters(qmp);
    const what = 'the answer to query-migrate-parameters';
    try {
      return new Settings(
        qmp,
        Object.fromEntries(CAPABILITIES.map((name) => [name, states.get(name) ?? false])),
        Object.fromEntries(PARAMETERS.map((name) => [name, need.integer(values, name, what)])),
      );
    } catch (cause) {
      throw new AbdmError('IMAGE', (cause as Error).message, { cause });
    }
  }

  /** The migration can always become post-copy, and no page leaves yet. */
  async apply(): Promise<void> {
    this.#areApplied = true;
    await setCapabilities(this.#qmp, Object.fromEntries(CAPABILITIES.map((name) => [name, true])));
    // With a limit of 0 it would stop after the first round.
    const some = { 'max-bandwidth': bandwidth.opening, 'max-postcopy-bandwidth': 0, 'downtime-limit': 1 };
    await setParameters(this.#qmp, some);
  }

  /** While no migration is under way. What others set since is left alone. */
  async restore(): Promise<void> {
    if (!this.#areApplied) return;
    await setParameters(this.#qmp, this.#parameters);
    await setCapabilities(this.#qmp, this.#capabilities);
    this.#areApplied = false;
  }
}
