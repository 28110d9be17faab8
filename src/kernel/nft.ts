/**
 * nftables' structure (tables, chains, rules, sets) by libnftables, the library behind the `nft` program: one text is one
 * transaction.
 *
 * A context holds a netlink socket of the namespace it was made in, which would keep a deleted namespace alive; and making
 * one costs 25 µs. So every call has its own, and nothing is kept.
 */
import koffi from 'koffi';
import { WeftError } from '../base/errors.ts';
import type { NsPath } from '../base/net-objects.ts';
import { withNetns } from './netns.ts';

const LIBRARY = 'libnftables.so.1';
const NFT_CTX_DEFAULT = 0;
const NFT_CTX_OUTPUT_JSON = 1 << 4;

type Context = object;

interface Library {
  create(flags: number): Context | null;
  free(context: Context): void;
  bufferOutput(context: Context): number;
  bufferError(context: Context): number;
  setFlags(context: Context, flags: number): void;
  run(context: Context, text: string): number;
  output(context: Context): string;
  error(context: Context): string;
}

let loaded: Library | undefined;

/** @throws WEFT_KERNEL_FEATURE_MISSING */
function library(): Library {
  loaded ??= loadLibrary(LIBRARY);
  return loaded;
}

/** Exported for the test of its absence. */
export function loadLibrary(file: string): Library {
  let lib: ReturnType<typeof koffi.load>;
  try {
    lib = koffi.load(file);
  } catch (error) {
    throw new WeftError('WEFT_KERNEL_FEATURE_MISSING', `${file} is not on this machine`, {
      cause: error,
      details: { feature: 'libnftables', package: 'libnftables1' },
      hint: 'Install the package libnftables1 (Debian, Ubuntu) or nftables (Fedora, Arch, Alpine).',
    });
  }
  const bind = <T>(prototype: string): T => lib.func(prototype) as unknown as T;
  return {
    create: bind('void* nft_ctx_new(uint32_t)'),
    free: bind('void nft_ctx_free(void*)'),
    bufferOutput: bind('int nft_ctx_buffer_output(void*)'),
    bufferError: bind('int nft_ctx_buffer_error(void*)'),
    setFlags: bind('void nft_ctx_output_set_flags(void*, unsigned int)'),
    run: bind('int nft_run_cmd_from_buffer(void*, const char*)'),
    output: bind('const char* nft_ctx_get_output_buffer(void*)'),
    error: bind('const char* nft_ctx_get_error_buffer(void*)'),
  };
}

interface Answer {
  ok: boolean;
  output: string;
  error: string;
}

/** Run commands in the namespace the thread is in; listings come as JSON. */
export function runNft(text: string): Answer {
  const lib = library();
  const context = lib.create(NFT_CTX_DEFAULT);
  if (context === null) throw new WeftError('WEFT_NFT_REJECTED', 'libnftables gave no context (no memory?)');
  try {
    if (lib.bufferOutput(context) !== 0 || lib.bufferError(context) !== 0) {
      throw new WeftError('WEFT_NFT_REJECTED', 'libnftables gave no buffers (no memory?)');
    }
    lib.setFlags(context, NFT_CTX_OUTPUT_JSON);
    const ok = lib.run(context, text) === 0;
    return { ok, output: lib.output(context), error: lib.error(context).trimEnd() };
  } finally {
    lib.free(context);
  }
}

/**
 * Apply a ruleset text as one transaction: all of it or nothing.
 *
 * @throws WEFT_NFT_REJECTED with nft's own words, WEFT_NETNS_NOT_FOUND, WEFT_KERNEL_FEATURE_MISSING without libnftables
 */
export function applyRuleset(ns: NsPath, ruleset: string): void {
  const { ok, error } = withNetns(ns, () => runNft(ruleset));
  if (!ok) throw nftRejected('apply a ruleset', ns, error);
}

/** WEFT_NFT_REJECTED with nft's own words. */
export function nftRejected(what: string, ns: NsPath, words: string): WeftError {
  const where = ns === '' ? '' : ` in ${ns}`;
  return new WeftError(
    'WEFT_NFT_REJECTED',
    `nftables refused to ${what}${where}: ${words || 'without a reason'}`,
    { details: { nft: words } },
  );
}
