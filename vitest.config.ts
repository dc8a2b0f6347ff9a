import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take longer than most, in that order: the last ones to end should be short. The others begin by size. */
const LONGEST = [
  'host/store/failures',
  'host/cli/live-failures',
  'host/cli/interruptions',
  'host/cli/qemu',
  'host/store/transfer',
  'host/store/conformance',
  'faults',
  'host/source/together',
  'host/cli/live-gangs',
  'host/source/live',
  'host/store/slots',
  'bench/figures',
  'host/cli/announced',
  'host/cli/live',
  'host/cli/failures',
  'host/cli/parking',
  'host/cli/steering',
  'host/cli/transfer',
  'host/source/to',
  'host/destination/restart',
  'host/image/qemu/source',
  'host/source/park',
  'package/package',
  'host/cli/demo/demo',
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = LONGEST.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`));
      return at < 0 ? LONGEST.length : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

// Tests run against the built package (`#abdm/...` is dist/): what is tested is what is shipped, and child processes need it anyway.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // Twice as many as a small machine has cores: most of them wait most of the time, for links that are slow and peers that are silent.
    maxWorkers: 4,
    sequence: { sequencer: LongestFirst },
    // Of tests in one file that say so.
    maxConcurrency: 3,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
