/** One invocation of the plugin, from what it was given to what it answers. Never throws. */
import { isWeftError } from '../base/errors.ts';
import type { CniBackend } from './backend.ts';
import { CNI_CODE, CniError, errorObject } from './errors.ts';
import { type CniRequest, parseRequest, versionToAnswer } from './parse-request.ts';
import { encodeResult, mergeResults } from './result.ts';
import { type AddRequest, CNI_VERSIONS, type CniAnswer, type CniInvocation } from './types.ts';

export async function handleCni(invocation: CniInvocation, backend: CniBackend): Promise<CniAnswer> {
  try {
    const output = await carryOut(parseRequest(invocation), backend);
    return { exitCode: 0, stdout: output === undefined ? '' : `${JSON.stringify(output)}\n` };
  } catch (error) {
    return failed(error, versionToAnswer(invocation.stdin));
  }
}

export function failed(error: unknown, version?: string): CniAnswer {
  return { exitCode: 1, stdout: `${JSON.stringify(errorObject(error, version))}\n` };
}

async function carryOut(call: CniRequest, backend: CniBackend): Promise<unknown> {
  switch (call.command) {
    case 'ADD': {
      const { request } = call;
      refuseTakenName(request);
      const own = await backend.add(request);
      return encodeResult(mergeResults(request.config.prevResult, own), call.version);
    }
    case 'DEL':
      return await backend.del(call.request);
    case 'CHECK':
      return await backend.check(call.request);
    case 'GC':
      return await backend.gc(call.request);
    case 'STATUS':
      return await status(backend);
    case 'VERSION':
      return { cniVersion: call.version, supportedVersions: CNI_VERSIONS };
  }
}

/** Chained after a plugin that has made this very interface, there is nothing Weft could attach. */
function refuseTakenName({ config, netns, ifname }: AddRequest): void {
  const taken = config.prevResult?.interfaces.some((i) => i.name === ifname && i.sandbox === netns);
  if (!taken) return;
  throw new CniError(
    CNI_CODE.invalidConfig,
    `an earlier plugin of network ${config.name} has made ${ifname} in ${netns} already; Weft makes the interface itself and goes first in a chain, or gets a network of its own`,
    'WEFT_ATTACH_CONFLICT',
  );
}

async function status(backend: CniBackend): Promise<undefined> {
  try {
    await backend.status();
    return undefined;
  } catch (error) {
    const affected = isWeftError(error, 'WEFT_CNI_NOT_READY') && error.details.affected === true;
    throw new CniError(
      affected ? CNI_CODE.notAvailableAffected : CNI_CODE.notAvailable,
      error instanceof Error ? error.message : String(error),
      isWeftError(error) ? error.code : 'WEFT_INTERNAL',
    );
  }
}
