// Loaded before all else. A command lives for seconds, and has many functions that are called some ten thousand times: by default V8 optimises most of
// them, on other threads, for a fifth of the CPU that a migration of 512 MiB takes, which on hosts without free cores is time of the migration. With
// four times the patience only those are optimised that are hot in earnest: an eighth of the CPU less there, and as much as before for 1 GiB.

import { setFlagsFromString } from 'node:v8';

/** Bytes of bytecode that a function runs before it is considered again; V8's default is 67,584. */
setFlagsFromString('--interrupt-budget=270000');
