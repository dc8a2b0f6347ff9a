// The package as its users get it: packed, installed into an empty project, used from JavaScript and TypeScript, in every Node that it is made for.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { skipped } from '../skipped.js';
import { attempt, Project, root, run } from './project.js';

vi.setConfig({ testTimeout: 180_000 }); // compilers, on machines that do other things too

const bin = (name: string) => join(root, 'node_modules/.bin', name);
let project: Project;
beforeAll(() => {
  project = new Project();
}, 300_000);
afterAll(() => project?.remove());

describe('the tarball', () => {
  test('has what users need, and nothing else', () => {
    const files = project.packed.files.map(({ path }) => path);
    const whole = ['LICENSE', 'package.json', 'dist/abdm.wasm', 'docs/library.md', 'docs/protocol.md'];
    expect(files).toEqual(expect.arrayContaining(whole));
    const modules = files.flatMap((path) => /^dist\/(.+)\.js$/.exec(path)?.[1] ?? []);
    for (const name of modules) {
      for (const kind of ['.d.ts', '.js.map']) expect(files).toContain(`dist/${name}${kind}`);
      // Left over from a file that is no more?
      expect(() => readFileSync(join(root, `${name}.ts`)), name).not.toThrow();
    }
    const known =
      /^(LICENSE|README\.md|package\.json|dist\/abdm\.wasm|dist\/.+\.(js|d\.ts|js\.map)|docs\/[\w-]+\.(md|svg|png))$/;
    expect(files.filter((path) => !known.test(path))).toEqual([]);
  });

  test('is what publint and attw want', () => {
    project.run(bin('publint'), '--strict', project.tarball);
    project.run(bin('attw'), project.tarball, '--profile', 'esm-only', '--exclude-entrypoints', 'abdm.wasm');
  });

  test('has a reference in which every public name is explained', () => {
    run(root, bin('typedoc'), '--logLevel', 'Warn', '--out', join(project.dir, 'api'));
    expect(readFileSync(join(project.dir, 'api/index.html'), 'utf8')).toContain('The library in ten lines');
  });

  test('brings two packages along', () => {
    const { packages } = JSON.parse(readFileSync(join(project.dir, 'package-lock.json'), 'utf8'));
    expect(Object.keys(packages).sort()).toEqual([
      '',
      'node_modules/@assemblyscript/loader',
      'node_modules/abdm',
      'node_modules/commander',
    ]);
  });
});

const PROGRAM = `
import { randomFillSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Divider, Merger, memorySink } from 'abdm';
import * as host from 'abdm/host';

const wasm = readFileSync(fileURLToPath(import.meta.resolve('abdm/abdm.wasm')));
if (!WebAssembly.validate(wasm)) throw new Error('abdm/abdm.wasm is no engine');

const pages = readFileSync(process.execPath).subarray(0, 64 * 4096);
const key = randomFillSync(new Uint8Array(32));
const divider = await Divider.create({ key });
const batch = divider.acquire();
batch.bytes.set(pages);
const [frame] = divider.divide(batch, { vm: 0, base: 0, pages: 64 });
const merger = await Merger.create({ key, vms: [{ pages: 64 }] });
const slot = merger.acquire();
slot.bytes.set(frame.bytes);
const copy = new Uint8Array(pages.length);
merger.merge(slot, frame.bytes.length, memorySink(copy));
if (Buffer.compare(pages, copy) !== 0) throw new Error('the copy differs');

writeFileSync('image', readFileSync(process.execPath).subarray(0, 5_000_001));
const node = await host.startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 2 ** 24 });
const images = [{ name: 'a', open: ({ bytes }) => new host.FileSink('merged', bytes) }];
const destination = await host.Destination.start({ listen: '127.0.0.1:0', images });
const image = new host.FileSource('image');
const vms = [{ name: 'a', image }];
const left = await new host.Ejection({ vms, to: destination.address, intermediates: [node.address] }).run();
const merged = await destination.done;
if (left.outcome !== 'completed' || merged.outcome !== 'completed') throw new Error(JSON.stringify([left, merged]));
if (Buffer.compare(readFileSync('image'), readFileSync('merged')) !== 0) throw new Error('the merged image differs');
image.close();
await node.close();
console.log('same bytes');
`;

describe('in plain JavaScript', () => {
  test('works in this Node', () => {
    project.write('main.mjs', PROGRAM);
    expect(project.run(process.execPath, 'main.mjs')).toBe('same bytes\n');
  });

  for (const version of ['20', '22', '24']) {
    test(`works in Node ${version}`, { timeout: 300_000 }, ({ skip }) => {
      if (process.versions.node.startsWith(`${version}.`)) return;
      const found = attempt(project.dir, 'npx', '-y', `node@${version}`, '--version');
      if (found.status !== 0 || !found.stdout.startsWith(`v${version}.`)) {
        const why = (found.stderr || found.error?.message || found.stdout).trim().split('\n').at(-1);
        return skipped(skip, `Node ${version} cannot be had from the registry (${why})`);
      }
      project.write('main.mjs', PROGRAM);
      expect(project.run('npx', '-y', `node@${version}`, 'main.mjs')).toBe('same bytes\n');
    });
  }

  test('shows our sources in stack traces', () => {
    project.write('wrong.mjs', "import { Divider } from 'abdm';\nawait Divider.create({ key: new Uint8Array(5) });\n");
    const { stderr } = attempt(project.dir, process.execPath, '--enable-source-maps', 'wrong.mjs');
    expect(stderr).toMatch(/bindings\/divider\.ts:\d+/);
    expect(stderr).toContain('throw new AbdmError');
  });

  test('runs as a command', () => {
    expect(project.run('npx', '--no-install', 'abdm', '--help')).toMatch(/Usage: abdm.*intermediate.*demo/s);
  });
});

const TYPED = `
import { AbdmError, type AbdmErrorCode, compileEngine, Divider, type DividerOptions, Merger, type PageSink, Placement } from 'abdm';

const options: DividerOptions = { key: new Uint8Array(32), slots: 4 };
const sink: PageSink = { write: () => {}, zero() {}, read: (_vm, pfn, memory, offset) => memory[offset + pfn] === 0 };
export async function main(wasm: Uint8Array): Promise<number> {
  await compileEngine(await compileEngine(wasm));
  const divider = await Divider.create(options);
  const merger = await Merger.create({ key: options.key, vms: [{ pages: 64 }] });
  const batch = divider.acquire();
  for (const { bytes, release } of divider.divide(batch, { vm: 0, base: 0, pages: 1, deltas: [0] })) {
    const slot = merger.acquire();
    slot.bytes.set(bytes);
    const { waitingPages } = merger.merge(slot, bytes.length, sink);
    if (waitingPages > 0) throw new AbdmError('FRAME_LOST' satisfies AbdmErrorCode, 'lost');
    slot.release();
    release();
  }
  (await Placement.create()).setNodes([{ name: 'a', weight: 1 }]);
  // @ts-expect-error: a key is bytes.
  await Divider.create({ key: 'secret' });
  return merger.mergedPages(0);
}
`;

const HOSTED = `
import { Destination, Ejection, FileSource, type ImageSource, startIntermediate, type Summary } from 'abdm/host';

export async function main(image: ImageSource = new FileSource('a')): Promise<Summary> {
  const node = await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 2 ** 24 });
  const destination = await Destination.start({ listen: '127.0.0.1:0', images: [] });
  const to: string = destination.address!;
  return new Ejection({ vms: [{ name: 'a', image }], to, intermediates: [node.address] }).run();
}
`;

describe('in TypeScript', () => {
  const compile = (compiler: string, compilerOptions: object, file: string) => {
    const strict = {
      strict: true,
      module: 'nodenext',
      target: 'es2022',
      noEmit: true,
      exactOptionalPropertyTypes: true,
    };
    project.write(
      'tsconfig.json',
      JSON.stringify({ compilerOptions: { ...strict, ...compilerOptions }, files: [file] }),
    );
    project.run(bin(compiler), '-p', 'tsconfig.json');
  };

  // Without skipLibCheck: our own typings are checked, too, with nothing but what the program says it has.
  test.each(['tsc', 'tsc6'])('compiles with %s where there is no DOM', (compiler) => {
    project.borrow('@types/node');
    project.write('typed.ts', TYPED);
    compile(compiler, { types: [], lib: ['es2022'] }, 'typed.ts');
    project.write('hosted.ts', HOSTED);
    compile(compiler, { types: ['node'], lib: ['es2022'] }, 'hosted.ts');
  });

  test('compiles where there is a DOM, and for a bundler', () => {
    project.write('typed.ts', TYPED);
    compile('tsc', { types: [] }, 'typed.ts');
    compile('tsc', { types: [], module: 'esnext', moduleResolution: 'bundler' }, 'typed.ts');
  });
});
