/** `weft agent`: runs until SIGTERM or SIGINT; pods and traffic outlive it. */
import { createLogger } from '../base/log.ts';
import { Agent } from './agent.ts';
import { loadAgentConfig } from './config.ts';

/** @throws WEFT_BAD_CONFIG, and whatever keeps the agent from starting */
export async function run(configFile: string): Promise<void> {
  const config = await loadAgentConfig(configFile);
  const logger = createLogger('agent').child({ node: config.nodeName });
  const stop = new Promise<string>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  const agent = await Agent.start({ config, logger });
  logger.info({ pid: process.pid }, 'agent runs');
  logger.info({ signal: await stop }, 'agent ends; what it made in the kernel stays');
  await agent.close();
}
