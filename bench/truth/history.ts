// What one guest saw of itself: when it ran, from which operation to which, and every byte that was not what it should have been. Made from the events
// that it printed, so that it is known of a guest that was killed too.
import type { Event } from '../faults/role.js';

export type GuestState = 'running' | 'stopped' | 'waiting' | 'loaded' | 'left';

/** A stretch in which it ran: operations [fromOperation, toOperation), milliseconds since 1970. */
export interface Ran {
  readonly fromOperation: number;
  readonly toOperation: number;
  readonly beganAtMs: number;
  /** For ever, if it never said that it does not run any more. */
  readonly endedAtMs: number;
  /** It was not killed while it ran: these are all of its operations, not only those that it had counted when it was. */
  readonly wasWhole: boolean;
}

export interface History {
  /** For people: whose guest at which end. */
  readonly name: string;
  /** What it said last; null if it never said anything. */
  readonly state: GuestState | null;
  readonly ran: readonly Ran[];
  /** What was wrong, in words. */
  readonly wrong: readonly string[];
  readonly killedAtMs: number | null;
}

interface StateEvent {
  readonly state: GuestState;
  readonly operation: number;
  readonly atMs: number;
}

interface OperationsEvent {
  readonly operations: number;
  readonly atMs: number;
}

/** Of a guest that has ended: by itself, or because it was killed. */
export function historyOf(name: string, events: readonly Event[], killedAtMs: number | null): History {
  const ran: Ran[] = [];
  const wrong: string[] = [];
  let state: GuestState | null = null;
  let began: StateEvent | null = null;
  let counted = 0;
  const end = (toOperation: number, endedAtMs: number, wasWhole: boolean) => {
    if (began) ran.push({ fromOperation: began.operation, toOperation, beganAtMs: began.atMs, endedAtMs, wasWhole });
    began = null;
  };
  for (const event of events) {
    if (event.type === 'state') {
      const said = event as unknown as StateEvent;
      state = said.state;
      end(said.operation, said.atMs, true);
      if (state === 'running') {
        began = said;
        counted = 0;
      }
    } else if (event.type === 'operations') counted += (event as unknown as OperationsEvent).operations;
    else if (event.type === 'wrong') wrong.push(`page ${event.pfn} at operation ${event.operation}: ${event.what}`);
    else if (event.type === 'summary') {
      const { ran: own, wrongPages } = event as unknown as { ran: readonly Ran[]; wrongPages: number };
      const last = own.at(-1);
      if (last) end(last.toOperation, last.endedAtMs, true);
      if (wrongPages > 0 && wrong.length === 0) wrong.push(`${wrongPages} pages, says its summary`);
    }
  }
  const open: StateEvent | null = began;
  if (open) end((open as StateEvent).operation + counted, killedAtMs ?? Number.POSITIVE_INFINITY, false);
  return { name, state, ran, wrong, killedAtMs };
}
