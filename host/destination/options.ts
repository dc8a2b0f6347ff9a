// What a destination is started with.

import type { Address } from '../wire/address.js';
import type { Security } from '../wire/security.js';
import type { AnnouncedVm } from './announcement.js';
import type { ImageTarget } from './images.js';

/** Either `listen` or `parked`. */
export interface DestinationOptions {
  /** HOST:PORT, port 0 for any free one. */
  listen?: Address | string;
  /** Instead of listening for a source: VMs that were parked, and the secret that they were parked with. */
  parked?: { vmKey: Uint8Array; intermediates: readonly string[] | 'announced' };
  /** Where announcements are heard: HOST:PORT. */
  announcements?: readonly string[];
  images: readonly ImageTarget[];
  /** Bytes of frames a second, at most. */
  rateBytesPerS?: number;
  security?: Security;
  /** How long a source that lost its connection may take to come back. Default 10,000. */
  returnMs?: number;
  /** How long nodes are waited for that do not answer and have what is missing. Default 30,000. */
  answerMs?: number;
  /** Called when it is known what comes. */
  onImages?(images: readonly AnnouncedVm[]): void;
  /** Called when a VM's guest has begun to run here; `atMs`: since 1970, with its fraction. */
  onRunning?(name: string, atMs: number): void;
}
