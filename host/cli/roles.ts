// abdm intermediate, eject and merge: from options to roles, and from what they say to an exit code.

import type { Compression } from '../../bindings/divider.js';
import { AbdmError } from '../../bindings/errors.js';
import { Destination } from '../destination/destination.js';
import type { ImageSource } from '../image/image.js';
import { openSource, parseImage, sinkOpener } from '../image/parse.js';
import { type IntermediateEvent, startIntermediate } from '../intermediate/intermediate.js';
import { Ejection } from '../source/source.js';
import { EXIT, exitCodeOf, onSignal } from './exit.js';
import type { Output } from './output.js';
import { formatBytes } from './sizes.js';

export async function intermediate(
  output: Output,
  { listen, memory, announce }: { listen: string; memory: number; announce?: string },
): Promise<number> {
  const node = await startIntermediate({
    listen,
    memoryBytes: memory,
    ...(announce && { announce }),
    onEvent: (event) => output.event(event, eventText(event)),
  });
  const text = `keeping up to ${formatBytes(memory)} of frames at ${node.address}`;
  output.event({ type: 'listening', address: node.address, memoryBytes: memory } as { type: string }, text);
  await new Promise<void>((resolve) => onSignal(() => resolve()));
  await node.close();
  return EXIT.completed;
}

export async function eject(
  output: Output,
  names: string[],
  options: { to: string; intermediates?: string[]; direct?: boolean; compress: Compression; rate?: number },
): Promise<number> {
  const { to, intermediates = [], direct = false, compress, rate } = options;
  if (direct === intermediates.length > 0) {
    throw new AbdmError('USAGE', 'name nodes with --intermediates HOST:PORT,..., or say --direct to go without');
  }
  const specs = parseImages(names);
  const vms: { name: string; image: ImageSource }[] = [];
  // A signal before the migration has begun: whatever process was stopped goes on when this one ends.
  let cancel = (_signal: string): void => process.exit(EXIT.aborted);
  onSignal((signal) => cancel(signal));
  try {
    for (const spec of specs) vms.push({ name: spec.name, image: await openSource(spec) });
    const ejection = new Ejection({ vms, to, intermediates, compress, ...(rate && { rateBytesPerS: rate }) });
    cancel = (signal) => ejection.cancel(`cancelled by ${signal}`);
    output.live('eject', () => ejection.status());
    const summary = await ejection.run();
    output.summary(summary);
    return exitCodeOf(summary, false);
  } finally {
    for (const { image } of vms) await image.close();
  }
}

export async function merge(
  output: Output,
  names: string[],
  { listen, rate }: { listen: string; rate?: number },
): Promise<number> {
  const images = parseImages(names).map((spec) => ({ name: spec.name, open: sinkOpener(spec) }));
  const destination = await Destination.start({
    listen,
    images,
    ...(rate && { rateBytesPerS: rate }),
    onImages: (vms) => output.event({ type: 'images', vms } as { type: string }),
  });
  onSignal((signal) => destination.cancel(`cancelled by ${signal}`));
  const { address } = destination;
  output.event({ type: 'listening', address } as { type: string }, `waiting for abdm eject at ${address}`);
  output.live('merge', () => destination.status());
  const summary = await destination.done;
  output.summary(summary);
  return exitCodeOf(summary, destination.handedOver);
}

/** What an operator wants to see of an intermediate; the rest is for programs. */
function eventText(event: IntermediateEvent): string | undefined {
  if (event.type === 'announce-failed') return event.error.message;
  const migration = event.migration?.slice(0, 8);
  if (event.type === 'hello') return `${event.peer} is ${event.role} of migration ${migration}`;
  if (event.type !== 'dropped' && event.type !== 'expired') return undefined;
  return `migration ${migration} ${event.type}: ${event.frames} frames, ${formatBytes(event.bytes)} given back`;
}

function parseImages(names: readonly string[]): ReturnType<typeof parseImage>[] {
  const specs = names.map(parseImage);
  const twice = specs.find(({ name }, i) => specs.findIndex((other) => other.name === name) !== i);
  if (twice) throw new AbdmError('USAGE', `two images are named ${twice.name}`);
  return specs;
}
