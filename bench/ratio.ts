// npm run bench:ratio -- [--quick] [--json] [--kernel NAME,...] [--pages CLASS,...]: the figures that we quote (bench/README.md).
import { type Options, parseOptions, USAGE } from './options.js';
import { lineText } from './rows.js';
import { measureRatios } from './run.js';

let options: Options;
try {
  options = parseOptions(process.argv.slice(2));
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(1);
}
await measureRatios(options, (line) => console.log(options.json ? JSON.stringify(line) : lineText(line)));
