// abdm intermediate: keeps frames until it is told to end.

import { type IntermediateEvent, startIntermediate } from '../intermediate/intermediate.js';
import { DEFAULT_PLACES } from '../mam/places.js';
import { openControl } from './control.js';
import { EXIT, onSignal } from './exit.js';
import type { Output } from './output.js';
import { type ClusterFlags, openSecurity } from './security.js';
import { formatBytes } from './sizes.js';

export interface IntermediateFlags extends ClusterFlags {
  readonly listen: string;
  readonly memory: number;
  readonly announce?: string;
}

export async function intermediate(output: Output, flags: IntermediateFlags): Promise<number> {
  const { listen, memory, announce } = flags;
  const security = openSecurity(output, flags);
  // Certificates do not fit into datagrams.
  const places = security.tls && !security.clusterKey ? [] : DEFAULT_PLACES;
  const node = await startIntermediate({
    listen,
    memoryBytes: memory,
    security,
    announcements: flags.announcements ?? places,
    ...(announce !== undefined && { announce }),
    onEvent: (event) => output.event(event, eventText(event)),
  });
  const { address } = node;
  const control = await openControl(output, { role: 'intermediate', names: [address], status: () => node.status() });
  const ended = new Promise<void>((resolve) => onSignal(() => resolve()));
  const text = `keeping up to ${formatBytes(memory)} of frames at ${address}`;
  output.event({ type: 'listening', address, memoryBytes: memory } as { type: string }, text);
  await ended;
  await node.close();
  control.close();
  return EXIT.completed;
}

/** What an operator wants to see of an intermediate; the rest is for programs. */
function eventText(event: IntermediateEvent): string | undefined {
  if (event.type === 'announce-failed') return event.error.message;
  const migration = event.migration?.slice(0, 8);
  if (event.type === 'hello') return `${event.peer} is ${event.role} of migration ${migration}`;
  if (event.type !== 'dropped' && event.type !== 'expired') return undefined;
  return `migration ${migration} ${event.type}: ${event.frames} frames, ${formatBytes(event.bytes)} given back`;
}
