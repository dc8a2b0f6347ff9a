// abdm intermediate: keeps frames until it is told to end.

import { type IntermediateEvent, startIntermediate } from '../intermediate/intermediate.js';
import { NodeIndex } from '../mam/index.js';
import { DEFAULT_PLACES } from '../mam/places.js';
import type { Security } from '../wire/security.js';
import { openControl } from './control.js';
import { EXIT, onSignal } from './exit.js';
import type { Output } from './output.js';
import { type ClusterFlags, openSecurity } from './security.js';
import { formatBytes, formatMs } from './sizes.js';

export interface IntermediateFlags extends ClusterFlags {
  readonly listen: string;
  readonly memory: number;
  readonly announce?: string;
}

export async function intermediate(output: Output, flags: IntermediateFlags): Promise<number> {
  const { listen, memory, announce } = flags;
  const security = openSecurity(output, flags);
  // Certificates do not fit into datagrams.
  const announcements = flags.announcements ?? (security.tls && !security.clusterKey ? [] : DEFAULT_PLACES);
  const others = await hearOthers(security, announcements);
  try {
    const node = await startIntermediate({
      listen,
      memoryBytes: memory,
      announcements,
      security,
      nodes: () => candidates(others),
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
  } finally {
    others?.close();
  }
}

/** The other nodes, as far as they can be heard here: in multicast groups. What is sent to peers is heard there. */
async function hearOthers(security: Security, announcements: readonly string[]): Promise<NodeIndex | null> {
  const groups = announcements.filter((place) => /^(22[4-9]|23\d)\./.test(place));
  return groups.length > 0 ? NodeIndex.open({ security, announcements: groups }) : null;
}

/** Who can take what a node that died had. */
function candidates(others: NodeIndex | null) {
  return (others?.nodes() ?? []).flatMap(({ id, address, freeBytes, suspect }) =>
    id === null || suspect ? [] : [{ id, address, freeBytes }],
  );
}

/** What an operator wants to see of an intermediate; the rest is for programs. */
function eventText(event: IntermediateEvent): string | undefined {
  if (event.type === 'announce-failed') return event.error.message;
  const migration = `migration ${event.migration?.slice(0, 8)}`;
  switch (event.type) {
    case 'hello':
      return `${event.peer} is ${event.role} of ${migration}`;
    case 'claimed':
      return `${migration} is claimed by ${event.by}`;
    case 'dropped':
    case 'expired':
      return `${migration} ${event.type}: ${event.frames} frames, ${formatBytes(event.bytes)} given back`;
    case 'lease-ending':
      return `LEASE ENDING: ${migration} (${event.vms.join(', ')}) is dropped in ${formatMs(event.expiresInMs)}: abdm renew lengthens it`;
    case 'restoring':
      return `${migration}: a node is gone, what it had is copied to another one`;
    case 'restored':
      return `${migration}: ${event.blocks} blocks, ${formatBytes(event.bytes)} copied${event.left > 0 ? `, ${event.left} could not be` : ''}`;
    default:
      return undefined;
  }
}
