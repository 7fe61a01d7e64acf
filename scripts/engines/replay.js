// Replays recorded runs (one JSON object a line, see recorder.py) on the emulator of @ton/sandbox and prints its answers
// in the same order. It compares nothing: the judge is scripts/engines/replay.py.
'use strict';
const readline = require('readline');
const { Cell, parseTuple, serializeTuple } = require('@ton/core');
const { Executor } = require('@ton/sandbox');

// The emulator walks cells recursively on the small stack of its WebAssembly: a message of some 400 levels overflows it, and after that
// every answer of this process is worthless. Such messages are not given to it, and the judge counts them.
const DEEPEST = 300;

const WHOLE_SHARD = 1n << 63n;
const int = (value) => ({ type: 'int', value: BigInt(value) });
const tuple = (items) => ({ type: 'tuple', items });
const block = ([seqno, root, file]) =>
  tuple([int(-1), int(WHOLE_SHARD), int(seqno), int('0x' + root), int('0x' + file)]);

// The emulator takes the block lists as one stack entry: a stack of one value without its depth and rest.
function stackEntry(value) {
  const slice = serializeTuple([value]).beginParse();
  slice.skip(24);
  slice.loadRef();
  return slice.asCell().toBoc().toString('base64');
}

function toStack(value) {
  if (value === null) return { type: 'null' };
  if (typeof value === 'string') return int(value);
  if (Array.isArray(value)) return tuple(value.map(toStack));
  if ('cell' in value) return { type: 'cell', cell: Cell.fromBase64(value.cell) };
  return { type: 'slice', cell: Cell.fromBase64(value.slice) };
}

function fromStack(item) {
  switch (item.type) {
    case 'null':
      return null;
    case 'nan':
      return 'nan';
    case 'int':
      return item.value.toString();
    case 'tuple':
      return item.items.map(fromStack);
    case 'cell':
    case 'slice':
      return { [item.type]: item.cell.toBoc().toString('base64') };
    default:
      throw new Error(`a ${item.type} on the stack of a get method`);
  }
}

function transaction(executor, config, blocks, run) {
  const depth = Cell.fromBase64(run.message).depth();
  if (depth > DEEPEST) return { too_deep: depth };
  const { result } = executor.runCommon([
    executor.getEmulatorPointer(config, 0),
    0,
    run.account,
    run.message,
    JSON.stringify({
      utime: run.now,
      lt: run.lt,
      rand_seed: run.seed,
      ignore_chksig: run.ignore_signatures,
      debug_enabled: false,
      prev_blocks_info: blocks,
    }),
  ]);
  if (result.success) return { transaction: result.transaction, account: result.shardAccount };
  return { error: result.error, exit_code: result.vmResults ? result.vmResults.vmExitCode : null };
}

function get(executor, config, blocks, run) {
  const parameters = {
    code: run.code,
    data: run.data,
    verbosity: 0,
    libs: '',
    address: '0:' + run.account,
    unixtime: run.now,
    balance: run.balance,
    rand_seed: run.seed,
    gas_limit: run.gas_limit,
    method_id: run.method,
    debug_enabled: false,
    prev_blocks_info: blocks,
  };
  const stack = serializeTuple(run.stack.map(toStack)).toBoc().toString('base64');
  const answer = executor.invoke('_run_get_method', [JSON.stringify(parameters), stack, config]);
  const { fail, output } = JSON.parse(executor.extractString(answer));
  if (fail || !output.success) return { error: JSON.stringify(output ?? fail) };
  const left = parseTuple(Cell.fromBase64(output.stack));
  return { exit_code: output.vm_exit_code, gas: Number(output.gas_used), stack: left.map(fromStack) };
}

async function main() {
  const executor = await Executor.create();
  console.log(JSON.stringify({ version: executor.getVersion() }));
  const configs = [];
  const blocks = [];
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const run = JSON.parse(line);
    if (run.kind === 'config') configs.push(run.cell);
    else if (run.kind === 'blocks')
      blocks.push(stackEntry(tuple([tuple(run.last.map(block)), block(run.key), tuple(run.hundreds.map(block))])));
    else {
      const execute = run.kind === 'get' ? get : transaction;
      let answer;
      try {
        answer = execute(executor, configs[run.config], blocks[run.blocks], run);
      } catch (error) {
        answer = { error: String(error) };
      }
      console.log(JSON.stringify(answer));
    }
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
