import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { expect, it } from 'vitest';
import { MAX_FRAME_BYTES, MessageType } from '#abdm/host/wire/messages.js';
import { pattern, until } from '../wire/pair.js';
import { Client } from './client.js';

const MiB = 2 ** 20;

// A process of its own: what is resident is the intermediate and nothing else. It tells how much whenever it is sent a line.
const SERVER = `
  const { startIntermediate } = await import(${JSON.stringify(import.meta.resolve('#abdm/host/intermediate/intermediate.js'))});
  const { createInterface } = await import('node:readline');
  const node = await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 1024 * ${MiB} });
  console.log(node.address);
  for await (const _ of createInterface({ input: process.stdin })) console.log(process.memoryUsage.rss());
  await node.close();
`;

it('is resident with what it keeps and little more, and lets go of it on DROP', async () => {
  const server = spawn(process.execPath, ['--input-type=module', '-e', SERVER], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    const lines: string[] = [];
    createInterface({ input: server.stdout }).on('line', (line) => lines.push(line));
    const next = async () => {
      await until(() => lines.length > 0);
      return lines.shift()!;
    };
    const residentBytes = async () => {
      server.stdin.write('\n');
      return Number(await next());
    };
    const client = await Client.open(await next());
    const start = await residentBytes();
    const body = pattern(MAX_FRAME_BYTES, 1);
    const frames = 1000;
    for (let id = 1; id <= frames; id++) {
      client.channel.send(MessageType.PUT, id, body);
      if (id > 8) await client.next('STORED');
    }
    for (let i = 0; i < 8; i++) await client.next('STORED');
    const kept = frames * MAX_FRAME_BYTES;
    expect((await residentBytes()) - start).toBeGreaterThan(0.95 * kept);
    expect((await residentBytes()) - start).toBeLessThan(1.1 * kept);
    await client.drop();
    let resident = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 100 && resident > start + 40 * MiB; i++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      resident = await residentBytes();
    }
    expect(resident - start).toBeLessThan(40 * MiB);
    await client.end();
    server.stdin.end();
    const [code] = await once(server, 'exit');
    expect(code).toBe(0);
  } finally {
    server.kill('SIGKILL');
  }
});
