// What the cluster key costs the source in CPU time: the same migration over loopback with a key, so with TLS and sealed frames, and without.
//
// A process that starts costs what it costs: each side's figure is what a large image takes beyond a tiny one.
import { writeFileSync } from 'node:fs';
import { type Spread, spread } from '../statistics.js';
import { migrate } from './migration.js';
import type { Plan } from './rows.js';

export interface SealingLine {
  readonly type: 'sealing';
  readonly runs: number;
  /** Of the source, CPU seconds per GiB of image; median and quartiles. */
  readonly plain: Spread;
  readonly sealed: Spread;
  /** Of the rounds: sealed by plain. */
  readonly ratio: Spread;
  readonly most: number;
  readonly holds: boolean;
}

const MOST = 1.25;
const GIB = 2 ** 30;

export async function sealing({ runs, image, keyFile, say }: Plan, imageBytes: number): Promise<SealingLine> {
  const tiny = `${image}-tiny`;
  writeFileSync(tiny, new Uint8Array(2 ** 16));
  const sides = { plain: null, sealed: keyFile } as const;
  const measured = { plain: [] as number[], sealed: [] as number[] };
  for (let run = 0; run < runs; run++) {
    const order = (run % 2 === 0 ? ['plain', 'sealed'] : ['sealed', 'plain']) as ('plain' | 'sealed')[];
    for (const side of order) {
      const setting = { network: null, nodes: 2, keyFile: sides[side] };
      const whole = await migrate({ ...setting, image });
      const start = await migrate({ ...setting, image: tiny });
      const cpuSPerGiB = (whole.sourceCpuS - start.sourceCpuS) / (imageBytes / GIB);
      measured[side].push(cpuSPerGiB);
      say(`${side}: ${cpuSPerGiB.toFixed(2)} CPU s/GiB at the source`);
    }
  }
  const ratio = spread(measured.sealed.map((sealed, i) => sealed / measured.plain[i]!));
  return {
    type: 'sealing',
    runs,
    plain: spread(measured.plain),
    sealed: spread(measured.sealed),
    ratio,
    most: MOST,
    holds: ratio.median <= MOST,
  };
}
