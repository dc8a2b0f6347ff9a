// Finds the roles that run on this host under this user, and asks them.

import { readdirSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { MAX_VMS } from '../../bindings/abi.js';
import { type JsonObject, need } from '../wire/json.js';
import { openControlDirectory, socketPath } from './directory.js';
import { type Ending, encodeLine, MAX_ANSWER_BYTES, type Request, readAnswer, readLine } from './messages.js';

/** A role that runs, as it describes itself. */
export interface RunningRole {
  readonly role: string;
  readonly pid: number;
  readonly names: readonly string[];
  readonly status: JsonObject;
}

/** A role that says nothing for so long is not waited for: it may be stopped, or at its end. */
const ANSWER_MS = 2_000;

/**
 * All of them, by process number, and the numbers of those that do not answer. Sockets of processes that have died are removed.
 * @throws {AbdmError} USAGE.
 */
export async function runningRoles(): Promise<{ roles: RunningRole[]; silent: number[] }> {
  const directory = openControlDirectory(false);
  const roles: RunningRole[] = [];
  const silent: number[] = [];
  if (directory === null) return { roles, silent };
  const numbered = readdirSync(directory).flatMap((name) => /^([1-9]\d{0,9})\.sock$/.exec(name)?.[1] ?? []);
  const pids = numbered.map(Number).sort((a, b) => a - b);
  const answers = await Promise.allSettled(
    pids.map(async (pid) => readRole(await ask(directory, pid, { ask: 'status' }, ANSWER_MS))),
  );
  for (const [i, answer] of answers.entries()) {
    const pid = pids[i]!;
    if (answer.status === 'fulfilled') roles.push(answer.value);
    else if (!isDead(pid)) silent.push(pid);
    else if (codeOf(answer.reason) === 'ECONNREFUSED') rmSync(socketPath(directory, pid), { force: true });
  }
  return { roles, silent };
}

/** Changes the rate limit of the role with this process number; null: no limit. @throws {AbdmError} what it says is wrong. */
export async function setRate(pid: number, bytesPerS: number | null): Promise<void> {
  await ask(openControlDirectory(true)!, pid, { ask: 'rate', bytesPerS }, ANSWER_MS);
}

/** Cancels it, and resolves when it is over. @throws {AbdmError} USAGE if it is too late for that; PEER_GONE. */
export async function cancelRole(pid: number, reason: string): Promise<Ending> {
  const what = 'the answer';
  const said = await ask(openControlDirectory(true)!, pid, { ask: 'cancel', reason }, null);
  const why = said.reason === null ? null : need.object(said, 'reason', what);
  return {
    outcome: need.string(said, 'outcome', what),
    reason: why && { code: need.string(why, 'code', what), message: need.string(why, 'message', what, 2_000) },
    vms: need.list(said, 'vms', what, MAX_VMS, (item) => {
      const vm = need.isObject(item, what, 'vms');
      return { name: need.string(vm, 'name', what), outcome: need.string(vm, 'outcome', what) };
    }),
  };
}

/** `timeoutMs` null: as long as the role lives. */
async function ask(directory: string, pid: number, request: Request, timeoutMs: number | null): Promise<JsonObject> {
  const socket = connect(socketPath(directory, pid));
  try {
    const answered = readLine(socket, MAX_ANSWER_BYTES);
    if (timeoutMs !== null) socket.setTimeout(timeoutMs, () => socket.destroy());
    socket.write(encodeLine(request));
    return readAnswer(await answered);
  } finally {
    socket.destroy();
  }
}

function readRole(from: JsonObject): RunningRole {
  const what = 'the answer';
  const names = need.list(from, 'names', what, 1024, String);
  const role = need.string(from, 'role', what);
  return { role, names, pid: need.integer(from, 'pid', what, 1), status: need.object(from, 'status', what) };
}

function codeOf({ cause }: Error): string | undefined {
  return (cause as NodeJS.ErrnoException | undefined)?.code;
}

function isDead(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
