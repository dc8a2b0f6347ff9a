// The control socket of a role: what abdm status, rate and cancel talk to.

import { type ControlledRole, ControlServer } from '../control/server.js';
import type { Output } from './output.js';

/** Opens it. A role also runs where that is not possible, and says what is then missing. */
export async function openControl(output: Output, role: ControlledRole): Promise<Pick<ControlServer, 'close'>> {
  try {
    return await ControlServer.open(role);
  } catch (error) {
    output.notice(`abdm status, rate and cancel will not find this ${role.role}: ${(error as Error).message}`);
    return { close: () => {} };
  }
}
