// The benchmark of stores: one small round of what needs no network of its own.
import { expect, test } from 'vitest';
import { rowsOf } from '../rows.js';
import { missing } from '../skipped.js';

test.skipIf(missing('valkey-server', 'redis-server', 'memcached'))(
  'every keeper of frames has its row, and the library alone costs more than any',
  async (context) => {
    const { code, rows, stderr } = await rowsOf(context, 'stores/main.js', '--only', 'path', '--rounds', '1');
    expect([code, stderr]).toEqual([0, '']);
    const paths = rows.filter(({ type }) => type === 'path') as { keeper: string; put: { median: number } }[];
    expect(paths.map(({ keeper }) => keeper).sort()).toEqual([
      'intermediate',
      'library',
      'memcached',
      'redis',
      'valkey',
    ]);
    const most = Math.max(...paths.map(({ put }) => put.median));
    expect(paths.find(({ keeper }) => keeper === 'library')!.put.median).toBe(most);
  },
);
