// The table of faults, in its order.
import type { Fault } from './fault.js';
import { BYTE_FAULTS } from './rows/bytes.js';
import { END_FAULTS } from './rows/ends.js';
import { NODE_FAULTS } from './rows/nodes.js';
import { STORE_FAULTS } from './rows/stores.js';
import { STRANGER_FAULTS } from './rows/strangers.js';

export const FAULTS: readonly Fault[] = [
  ...NODE_FAULTS,
  ...BYTE_FAULTS,
  ...END_FAULTS,
  ...STRANGER_FAULTS,
  ...STORE_FAULTS,
];
