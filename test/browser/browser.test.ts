// The library in a browser: bundled from the installed package, run in headless Chromium, and the frames that it makes there are those that it makes
// in Node.
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { build, createLogger } from 'vite';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { Project, root } from '../package/project.js';
import { seededPages } from '../pages.js';
import { skipped } from '../skipped.js';
import { serve } from './server.js';
import { transfer } from './transfer.js';

const CHROMIUM = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium';
// As root there is no sandbox; and nothing but this test's page is to be fetched from anywhere.
const QUIET = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
];

let project: Project;
let out: string;
const warnings: string[] = [];

beforeAll(async () => {
  project = new Project();
  out = join(project.dir, 'out');
  for (const name of ['page.ts', 'transfer.ts']) cpSync(join(root, 'test/browser', name), join(project.dir, name));
  project.write('index.html', '<!doctype html><title>abdm</title><script type="module" src="./page.ts"></script>');
  const customLogger = createLogger('warn');
  customLogger.warn = (message) => warnings.push(message);
  await build({ root: project.dir, configFile: false, logLevel: 'warn', customLogger, build: { outDir: out } });
}, 300_000);
afterAll(() => project?.remove());

describe('a bundle for browsers', () => {
  const assets = (extension: string) => readdirSync(join(out, 'assets')).filter((name) => name.endsWith(extension));

  test('brings the engine along as an asset', () => {
    const [wasm, ...more] = assets('.wasm');
    expect(more).toEqual([]);
    expect(readFileSync(join(out, 'assets', wasm!)).equals(readFileSync(join(root, 'dist/abdm.wasm')))).toBe(true);
    expect(readFileSync(join(out, 'assets', assets('.js')[0]!), 'utf8')).toContain(wasm);
  });

  test('needs nothing of Node, and is made without a warning', () => {
    expect(warnings).toEqual([]);
    expect(assets('.js')).toHaveLength(1);
    const code = readFileSync(join(out, 'assets', assets('.js')[0]!), 'utf8');
    expect(code).not.toMatch(/(from|import\()\s*["'`]node:/);
    expect(code.length).toBeLessThan(50_000);
  });
});

describe('in headless Chromium', () => {
  test('4,000 pages become the same frames as in Node, and the same pages again', { timeout: 120_000 }, async ({
    skip,
  }) => {
    if (!existsSync(CHROMIUM))
      return skipped(skip, `there is no Chromium at ${CHROMIUM} (CHROMIUM_PATH says where else)`);
    const image = seededPages(41, 4000);
    const key = new Uint8Array(randomBytes(32));
    const served = await serve(out, { '/image': image, '/key': key });
    onTestFinished(() => served.close());
    // A new profile each time, in a directory that is removed afterwards.
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: QUIET });
    onTestFinished(() => browser.close());
    const page = await browser.newPage();
    const complaints: string[] = [];
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => complaints.push(message.text()));
    await page.goto(`${served.url}/index.html`);
    await page.waitForFunction('globalThis.run');
    const result = await page.evaluate('run()');

    const inNode = await transfer(image, key);
    expect(result).toEqual({ counts: { ...inNode.counts }, mergedPages: 4000, coded: 'USAGE' });
    expect(served.posted.get('/copy')!.equals(image)).toBe(true);
    expect(served.posted.get('/frames')!.equals(inNode.frames)).toBe(true);
    expect(Buffer.compare(inNode.copy, image)).toBe(0);
    expect(complaints.filter((text) => !/favicon|404/.test(text))).toEqual([]);
  });
});
