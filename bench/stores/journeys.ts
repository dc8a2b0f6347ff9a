// What a VM costs that is parked at whoever keeps frames, and taken in when its source has ended, so that all frames pass the keeper: on hosts of a network, with
// a key, side by side. Pages are not compressed, so that what is done with frames weighs as much as it can.
//
// A process that starts costs what it costs: CPU figures are what a large image takes beyond a tiny one.
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeMix } from '../mix.js';
import { Network } from '../network/namespaces.js';
import { type Spread, spread } from '../statistics.js';
import { journey, SIDES, type Side } from './journey.js';
import { has } from './servers.js';

export interface JourneyLine {
  readonly type: 'journey';
  readonly keeper: string;
  readonly rounds: number;
  readonly imageBytes: number;
  readonly bitsPerS: number;
  readonly exitMs: Spread;
  readonly mergeMs: Spread;
  /** CPU seconds per GiB of image. */
  readonly source: Spread;
  readonly destination: Spread;
  /** Of the rounds: by a node of ours. */
  readonly sourceRatio: Spread;
  readonly destinationRatio: Spread;
}

/** Of one round. */
interface Figures {
  readonly exitMs: number;
  readonly mergeMs: number;
  readonly source: number;
  readonly destination: number;
}

const BITS_PER_S = 1e9;
const GIB = 2 ** 30;

function isHere(side: Side): boolean {
  if (side === 'intermediate') return true;
  return has(side === 'memcached' ? side : `${side}-server`);
}

/** @param directory for images and whatever servers need. */
export async function measureJourneys(
  directory: string,
  rounds: number,
  imageBytes: number,
  say: (text: string) => void,
): Promise<JourneyLine[]> {
  const [image, tiny, key] = ['image', 'tiny', 'key'].map((name) => join(directory, name)) as [string, string, string];
  await writeMix(image, imageBytes);
  writeFileSync(tiny, new Uint8Array(2 ** 16));
  writeFileSync(key, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  const sides = SIDES.filter(isHere);
  const took = new Map<Side, Figures[]>(sides.map((side) => [side, []]));
  const network = new Network(['source', 'store', 'destination'].map((name) => ({ name, bitsPerS: BITS_PER_S })));
  try {
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < sides.length; i++) {
        // Who begins changes from round to round.
        const side = sides[(round + i) % sides.length]!;
        const start = await journey(network, side, tiny, key);
        const whole = await journey(network, side, image, key);
        const perGiB = (figure: 'sourceCpuS' | 'destinationCpuS') =>
          (whole[figure] - start[figure]) / (imageBytes / GIB);
        const { exitMs, mergeMs } = whole;
        const figures = { exitMs, mergeMs, source: perGiB('sourceCpuS'), destination: perGiB('destinationCpuS') };
        took.get(side)!.push(figures);
        const cpu = `${figures.source.toFixed(2)} and ${figures.destination.toFixed(2)} CPU s/GiB`;
        say(`${side}: exit ${Math.round(exitMs)} ms, merge ${Math.round(mergeMs)} ms, ${cpu}`);
      }
    }
  } finally {
    network.close();
  }
  const own = took.get('intermediate')!;
  return sides.map((keeper) => {
    const all = took.get(keeper)!;
    const of = (figure: keyof Figures) => spread(all.map((one) => one[figure]));
    const ratio = (figure: keyof Figures) => spread(all.map((one, i) => one[figure] / own[i]![figure]));
    return {
      type: 'journey',
      keeper,
      rounds,
      imageBytes,
      bitsPerS: BITS_PER_S,
      exitMs: of('exitMs'),
      mergeMs: of('mergeMs'),
      source: of('source'),
      destination: of('destination'),
      sourceRatio: ratio('source'),
      destinationRatio: ratio('destination'),
    };
  });
}
