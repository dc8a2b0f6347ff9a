// The log of a web server that never was: as repetitive, and as full of identifiers that never repeat, as real ones are.

export interface RequestRecord {
  time: string;
  id: string;
  method: string;
  path: string;
  status: number;
  durationMs: number;
  bytes: number;
  client: { address: string; agent: string; session: string };
  tags: string[];
}

const METHODS = ['GET', 'GET', 'GET', 'GET', 'POST', 'PUT', 'DELETE', 'HEAD'];
const STATUSES = [200, 200, 200, 200, 200, 201, 204, 301, 304, 400, 401, 404, 500];
const RESOURCES = ['orders', 'customers', 'products', 'sessions', 'images', 'search', 'carts', 'invoices', 'reviews'];
const AGENTS = [
  'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0',
  'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36',
  'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148',
  'curl/8.8.0',
  'internal-health-check/2.1',
];
const TAGS = [
  'cache-hit',
  'cache-miss',
  'authenticated',
  'anonymous',
  'retry',
  'slow',
  'canary',
  'eu-central',
  'us-east',
];

/** About `bytes` (a line more at most) of JSON lines; the same for the same seed. */
export function requestLog(seed: number, bytes: number): Buffer {
  const lines: string[] = [];
  const next = numbers(seed);
  let done = 0;
  for (let at = 1_700_000_000_000 + seed * 3_600_000; done < bytes; at += next() % 250) {
    const line = `${JSON.stringify(record(next, at))}\n`;
    lines.push(line);
    done += line.length;
  }
  return Buffer.from(lines.join(''), 'latin1');
}

export function parseLog(log: Buffer): RequestRecord[] {
  const lines = log.toString('latin1').split('\n');
  return lines.filter(Boolean).map((line) => JSON.parse(line) as RequestRecord);
}

/** What a server would look records up by. */
export function indexRecords(records: readonly RequestRecord[]): Map<string, unknown> {
  const bySession = new Map<string, RequestRecord[]>();
  const byPath = new Map<string, { count: number; totalMs: number }>();
  for (const entry of records) {
    const list = bySession.get(entry.client.session);
    if (list) list.push(entry);
    else bySession.set(entry.client.session, [entry]);
    const sum = byPath.get(entry.path) ?? { count: 0, totalMs: 0 };
    byPath.set(entry.path, { count: sum.count + 1, totalMs: sum.totalMs + entry.durationMs });
  }
  return new Map<string, unknown>([
    ['session', bySession],
    ['path', byPath],
  ]);
}

function record(next: () => number, at: number): RequestRecord {
  const of = <T>(values: readonly T[]) => values[next() % values.length]!;
  const hex = (digits: number) => next().toString(16).padStart(8, '0').slice(0, digits);
  const path = `/api/v2/${of(RESOURCES)}/${next() % 50_000}`;
  return {
    time: new Date(at).toISOString(),
    id: `${hex(8)}-${hex(4)}-${hex(4)}-${hex(8)}${hex(4)}`,
    method: of(METHODS),
    path: next() % 4 === 0 ? `${path}?page=${next() % 40}&sort=${of(['date', 'price', 'name'])}` : path,
    status: of(STATUSES),
    durationMs: (next() % 200_000) / 1000,
    bytes: next() % 65_536,
    client: {
      address: `10.${next() % 16}.${next() % 256}.${next() % 256}`,
      agent: of(AGENTS),
      session: `s${next() % 5000}.${hex(8)}`,
    },
    tags: [of(TAGS), of(TAGS)],
  };
}

/** xorshift32, seeded: numbers in [0, 2^32). */
function numbers(seed: number): () => number {
  let x = ((seed + 1) * 2654435761) >>> 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}
