// What README.md and docs/operations.md tell people to type is what the command takes.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = new URL('../../../', import.meta.url);
const MAIN = fileURLToPath(new URL('dist/host/cli/main.js', root));
const help = (...args: string[]) => execFileSync(process.execPath, [MAIN, ...args, '--help'], { encoding: 'utf8' });
const flagsIn = (text: string) => [...text.matchAll(/(?<![\w-])--[a-z][a-z-]*/g)].map(([flag]) => flag);

const commands = [...help().matchAll(/^ {2}([a-z]+) \[options\]/gm)].map(([, name]) => name!);
const flags = new Map(commands.map((name) => [name, new Set(flagsIn(help(name)))]));
const known = new Set([...flags.values()].flatMap((of) => [...of]));

test.each(['README.md', 'docs/operations.md'])('every command and flag in %s exists', (file) => {
  const text = readFileSync(new URL(file, root), 'utf8');
  const wrong: string[] = [];
  let typed = 0;
  let isBlock = false;
  for (const line of text.split('\n')) {
    for (const flag of flagsIn(line)) if (!known.has(flag)) wrong.push(`${flag}: ${line}`);
    if (line.startsWith('```')) isBlock = !isBlock;
    // In blocks, behind a prompt or not; elsewhere between backticks. What follows # is prose.
    const command = isBlock ? /(?:^|[$;] *)abdm ([a-z]+)([^#;]*)/g : /`abdm ([a-z]+)([^`]*)/g;
    for (const [, name, rest] of line.matchAll(command)) {
      typed++;
      const takes = flags.get(name!);
      if (!takes) wrong.push(`abdm ${name}: ${line}`);
      for (const flag of flagsIn(rest!)) if (takes && !takes.has(flag)) wrong.push(`abdm ${name} ${flag}: ${line}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(typed).toBeGreaterThan(8);
});
