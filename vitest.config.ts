import { defineConfig } from 'vitest/config';

// Tests run against the built package (`#abdm/...` is dist/): what is tested is what is shipped, and child processes need it anyway.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
