// What holds across files and no compiler checks: which way imports go, that bindings/abi.ts is what the engine is, and what the hot loops of the
// release build are made of.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import * as abi from '#abdm/bindings/abi.js';
import { functionsOf, type WatFunction } from './wat.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const sources = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => posix.join(folder, name.replaceAll('\\', '/')));

describe('imports', () => {
  /** A file imports from its own folder and from folders in earlier rows. */
  const ROWS = [
    ['assembly'],
    ['bindings'],
    ['host/ownership'],
    ['host/summary.ts'],
    ['host/wire'],
    ['host/guest', 'host/qemu'],
    ['host/mam', 'host/image', 'host/control'],
    ['host/intermediate', 'host/store'],
    ['host/source', 'host/destination'],
    ['host/index.ts', 'host/cli'],
  ];
  const placeOf = (path: string) => {
    const row = ROWS.findIndex((places) => places.some((place) => path === place || path.startsWith(`${place}/`)));
    if (row < 0) throw new Error(`${path} lies in a folder that has no place in the order of imports: give it one`);
    return { row, place: ROWS[row]!.find((place) => path === place || path.startsWith(`${place}/`)) };
  };
  const importsOf = (path: string) => {
    const code = read(path).replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
    return [...code.matchAll(/(?:^import\b(?!\()|^export (?:type )?[{*]|\bimport\()[^;']*'([^']+)'/gm)].map(
      (match) => match[1]!,
    );
  };
  const files = ['assembly', 'bindings', 'host'].flatMap(sources);

  test('go one way', () => {
    const wrong: string[] = [];
    let seen = 0;
    for (const file of files) {
      const own = placeOf(file);
      for (const name of importsOf(file).filter((name) => name.startsWith('.'))) {
        const target = posix.join(dirname(file), name.replace(/(\.js)?$/, '.ts'));
        const other = placeOf(target);
        seen++;
        if (other.place !== own.place && other.row >= own.row) wrong.push(`${file} imports ${target}`);
        if (other.place === 'assembly' && own.place !== 'assembly') wrong.push(`${file} imports ${target}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(seen).toBeGreaterThan(100);
  });

  test('reach Node and packages only where they may', () => {
    const { dependencies, peerDependencies } = JSON.parse(read('package.json'));
    const allowed = new Set(Object.keys(dependencies));
    /** Loaded only where it is asked for. */
    const optional = new Set(Object.keys(peerDependencies));
    for (const file of files) {
      const place = placeOf(file).place!;
      for (const name of importsOf(file).filter((name) => !name.startsWith('.'))) {
        const from = `${file} imports ${name}`;
        if (name.startsWith('node:')) expect(place.startsWith('host'), from).toBe(true);
        else if (optional.has(name)) expect(place, from).toBe('host/store');
        else expect(place !== 'assembly' && allowed.has(name), from).toBe(true);
      }
    }
  });
});

describe('bindings/abi.ts', () => {
  const wasm = new WebAssembly.Module(readFileSync(join(root, 'dist/abdm.wasm')));

  test('names every export of the engine with its parameters, and nothing else', () => {
    const memory = new WebAssembly.Memory({ initial: 8, maximum: 8 });
    const { exports } = new WebAssembly.Instance(wasm, { env: { memory } });
    const real = Object.entries(exports).flatMap(([name, value]) =>
      typeof value === 'function' ? [`${name}/${value.length}`] : [],
    );
    const [, body] = /interface EngineExports \{(.*?)^\}/ms.exec(read('bindings/abi.ts'))!;
    const declared = [...body!.matchAll(/^ {2}(\w+)\(([^)]*)\)/gm)].map(
      ([, name, parameters]) => `${name}/${parameters!.split(',').filter((one) => one.trim() !== '').length}`,
    );
    expect(declared.sort()).toEqual(real.sort());
    expect(WebAssembly.Module.imports(wasm)).toEqual([{ module: 'env', name: 'memory', kind: 'memory' }]);
  });

  /** The numbers that a file of the engine declares. */
  const constantsOf = (file: string) =>
    Object.fromEntries(
      [...read(file).matchAll(/^(?:export )?const (\w+): \w+ = (0x[0-9a-f]+|\d+);/gm)].map(([, name, value]) => [
        name,
        Number(value),
      ]),
    );

  test('has the constants of the engine', () => {
    const layout = constantsOf('assembly/layout.ts');
    const frame = constantsOf('assembly/frame.ts');
    const dedup = constantsOf('assembly/dedup.ts');
    const framed = (pages: number) =>
      frame.HEADER_BYTES! +
      pages * (frame.ENTRY_BYTES! + frame.ID_BYTES! + 8 + layout.PAGE_BYTES!) +
      frame.TAG_BYTES! +
      frame.CHECKSUM_BYTES!;
    const numbers = Object.fromEntries(Object.entries(abi).filter(([, value]) => typeof value === 'number'));
    // Two keys of SipHash, and what fits beside the fixed part: no file of the engine has a name for them.
    delete numbers.KEY_BYTES;
    delete numbers.MAX_GANG_PAGES;
    expect(numbers).toEqual({
      PAGE_BYTES: layout.PAGE_BYTES,
      FRAME_PAGES: layout.FRAME_PAGES,
      BATCH_PAGES: layout.BATCH_PAGES,
      MAX_VMS: layout.MAX_VMS,
      MAX_NODES: layout.MAX_NODES,
      FIXED_BYTES: layout.FIXED_BYTES,
      RESULT_PTR: layout.RESULT,
      TAG_KEY_PTR: layout.KEYS! + 4160,
      NODES_PTR: layout.NODES,
      PICKS_PTR: layout.PICKS,
      BATCH_PFNS_PTR: layout.BATCH_PFNS,
      ID_BYTES: frame.ID_BYTES,
      MAX_FRAME_ID: 2 ** 47 - 1,
      DEDUP_BUCKET_BYTES: 2 ** dedup.BUCKET_SHIFT!,
      DEDUP_WAYS: 5, // two in the bucket's first half, three in its second
      MAX_FRAME_BYTES: framed(64),
    });
    expect([0, 1, 64].map(abi.frameBound)).toEqual([0, 1, 64].map(framed));
  });

  test('agrees with the compiler on where static data lies', () => {
    const { options } = JSON.parse(read('asconfig.json'));
    const segments = [...read('dist/abdm.wat').matchAll(/^ \(data \S+ \(i32\.const (\d+)\) "(.*)"\)$/gm)];
    expect(segments.length).toBeGreaterThan(0);
    for (const [, at, text] of segments) {
      expect(Number(at)).toBeGreaterThanOrEqual(options.memoryBase);
      const bytes = text!.replaceAll(/\\([0-9a-f]{2}|.)/g, '.').length;
      expect(Number(at) + bytes).toBeLessThanOrEqual(abi.FIXED_BYTES);
    }
  });
});

describe('the release build', () => {
  const functions = functionsOf(read('dist/abdm.wat'));

  test('is below 100 KB', () => {
    expect(readFileSync(join(root, 'dist/abdm.wasm')).length).toBeLessThan(100_000);
  });

  /** Kernels by file. Every loop that has no loop within it runs for each few bytes: a call in it would cost more than its work. */
  const KERNELS = ['page', 'content-id', 'xxh3', 'siphash', 'lz4', 'lz4-high', 'bitmap'];
  /** Loops of kernels' files that run once a page, or once a migration. */
  const COLD = /\/(contentIds|countZero|setKey)$/;

  test.each(KERNELS)('has no call in an innermost loop of assembly/%s.ts', (file) => {
    const own = functions.filter(({ name }) => name.startsWith(`assembly/${file}/`) && !COLD.test(name));
    const loops = own.flatMap(({ name, loops }) => loops.map((loop) => ({ name, ...loop })));
    expect(loops.length).toBeGreaterThan(0);
    expect(loops.filter(({ innermost, calls }) => innermost && calls.length > 0)).toEqual([]);
  });

  const hot = (name: string): WatFunction => {
    const found = functions.find((one) => one.name === `assembly/${name}`);
    if (!found) throw new Error(`the release build has no function ${name}: has it moved, or was it inlined?`);
    return found;
  };

  test.each([
    'lz4/lz4Compress',
    'lz4/lz4DecompressInWindow',
    'lz4-high/lz4CompressHigh',
    'page/isZero',
    'content-id/nh',
  ])('has no call at all in %s', (name) => {
    expect(hot(name).calls).toEqual([]);
    expect(hot(name).loops.length).toBeGreaterThan(0);
  });

  test('looks up a content with one call and no loop', () => {
    expect(hot('dedup/refOf')).toMatchObject({ calls: [], loops: [] });
    for (const name of ['dedup/find', 'dedup/insert']) {
      expect(hot(name).loops, name).toEqual([]);
      expect(hot(name).calls.length, name).toBeLessThanOrEqual(1);
    }
  });
});
