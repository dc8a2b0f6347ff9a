// abdm merge: from options to a Destination, and from what it says to an exit code.

import { AbdmError } from '../../bindings/errors.js';
import { Destination } from '../destination/destination.js';
import type { ImageTarget } from '../destination/images.js';
import { type ImageSpec, isGuestSpec, sinkOpener } from '../image/parse.js';
// With it stores can be named.
import '../store/index.js';
import type { Summary } from '../summary.js';
import { openControl } from './control.js';
import { EXIT, exitCodeOf, onSignal } from './exit.js';
import { defaultVmKey, parseImages } from './images.js';
import { readKeyFile } from './keys.js';
import type { Output } from './output.js';
import { Meter } from './progress.js';
import { type ClusterFlags, namedKeepers, openSecurity } from './security.js';

export interface MergeFlags extends ClusterFlags {
  readonly listen?: string;
  readonly parked?: boolean;
  readonly vmKey?: string;
  readonly rate?: number;
}

export async function merge(output: Output, images: string[], flags: MergeFlags): Promise<number> {
  const { listen, parked = false, announcements, rate } = flags;
  checkFlags(flags);
  const specs = parseImages(images);
  const targets = specs.map(target);
  const names = specs.map(({ name }) => name);
  const security = openSecurity(output, flags);
  const vmKey = parked ? readKeyFile(flags.vmKey ?? defaultVmKey(names)) : null;
  const destination = await Destination.start({
    images: targets,
    security,
    ...(listen !== undefined && { listen }),
    ...(vmKey && { parked: { vmKey, intermediates: namedKeepers(flags) ?? 'announced' } }),
    ...(announcements && { announcements }),
    ...(rate !== undefined && { rateBytesPerS: rate }),
    onImages: (vms) => output.event({ type: 'images', vms } as { type: string }),
    onRunning: (vm, atMs) => output.event({ type: 'running', vm, atMs } as { type: string }, `${vm} runs here`),
  });
  onSignal(
    (signal) => destination.cancel(`cancelled by ${signal}`),
    () => (destination.handedOver ? EXIT.recoverable : EXIT.aborted),
  );
  const { address } = destination;
  if (address !== null) {
    output.event({ type: 'listening', address } as { type: string }, `waiting for abdm eject at ${address}`);
  }
  const meter = new Meter(() => destination.status());
  const control = await openControl(output, {
    role: 'merge',
    names,
    status: () => meter.read(),
    cancel: (reason) => {
      if (destination.handedOver) throw new AbdmError('USAGE', tooLate(names));
      destination.cancel(reason);
    },
    setRate: (bytesPerS) => destination.setRate(bytesPerS),
  });
  output.live('merge', meter);
  let ending: Summary | null = null;
  try {
    ending = await destination.done;
    output.stopLive();
    if (ending.outcome === 'paused-recoverable') output.notice(howToGoOn(ending, specs));
    output.summary(ending);
    return exitCodeOf(ending, destination.hasLost);
  } finally {
    control.close(ending);
  }
}

/** What no single option can check. @throws {AbdmError} USAGE. */
function checkFlags({ listen, parked, vmKey }: MergeFlags): void {
  const wrong = (text: string) => new AbdmError('USAGE', text);
  if (!listen === !parked) throw wrong('say where from: --listen HOST:PORT, or --parked for VMs that left with --park');
  if (!parked && vmKey !== undefined) throw wrong('--vm-key is for --parked');
}

function target(spec: ImageSpec): ImageTarget {
  return {
    name: spec.name,
    open: sinkOpener(spec),
    statePath: `${spec.place}.abdm`,
  };
}

function howToGoOn({ vms }: Summary, specs: readonly ImageSpec[]): string {
  const guests = specs.filter((spec) => {
    return isGuestSpec(spec) && vms.some(({ name, outcome }) => name === spec.name && outcome === 'paused-recoverable');
  });
  const again = 'start the same command again: it goes on from here';
  if (guests.length === 0) return again;
  return `${again}. Leave ${guests.map(({ name, place }) => `the guest of ${name} at ${place}`).join(', ')} as it is; if it is gone, start another there`;
}

function tooLate(names: readonly string[]): string {
  return `${names.join(', ')}: past the exit: the source has left, and only this destination has what brings the VM back`;
}
