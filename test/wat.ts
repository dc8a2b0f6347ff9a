// The text form of the engine, as far as tests look at it: its functions, their loops and calls.

export interface WatLoop {
  /** No other loop lies in it. */
  innermost: boolean;
  /** What it calls, itself or in loops within it. */
  calls: string[];
}

export interface WatFunction {
  name: string;
  calls: string[];
  loops: WatLoop[];
}

/** Reads a module as the compiler writes it: an instruction a line, blocks closed by `end`. */
export function functionsOf(wat: string): WatFunction[] {
  const functions: WatFunction[] = [];
  let current: WatFunction | undefined;
  /** What is open at this line; blocks that are no loops stand as null. */
  let open: (WatLoop | null)[] = [];
  for (const line of wat.split('\n')) {
    const [word, name = ''] = line.trim().split(' ');
    if (word === '(func') {
      current = { name: name.slice(1), calls: [], loops: [] };
      functions.push(current);
      open = [];
    } else if (!current) continue;
    else if (word === 'loop') {
      for (const outer of open) if (outer) outer.innermost = false;
      const loop = { innermost: true, calls: [] };
      current.loops.push(loop);
      open.push(loop);
    } else if (word === 'block' || word === 'if') open.push(null);
    else if (word === 'end') {
      if (open.length === 0) throw new Error(`an end too many in ${current.name}`);
      open.pop();
    } else if (word === 'call' || word === 'call_indirect') {
      current.calls.push(name);
      for (const outer of open) outer?.calls.push(name);
    } else if (line === ' )') {
      if (open.length > 0) throw new Error(`an end is missing in ${current.name}`);
      current = undefined;
    }
  }
  if (functions.length === 0) throw new Error('this is no module in text form');
  return functions;
}
