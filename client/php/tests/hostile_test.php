<?php

declare(strict_types=1);

use Longline\Answer;
use Longline\Client;
use Longline\Json;
use Longline\LonglineException;
use Longline\Options;
use Longline\Transport;

/** A gateway that answers as it is told, one answer after another. */
function script(array &$asked, string|Answer ...$answers): Transport
{
    return new class ($asked, $answers) implements Transport {
        public function __construct(private array &$asked, private array $answers)
        {
        }

        public function send(string $method, string $url, array $headers, ?string $body, float $timeout): Answer
        {
            $this->asked[] = ['method' => $method, 'url' => $url, 'headers' => $headers];
            $answer = count($this->answers) > 1 ? array_shift($this->answers) : $this->answers[0];
            return is_string($answer) ? new Answer(200, [], $answer) : $answer;
        }
    };
}

function scripted(array &$asked, string|Answer ...$answers): Client
{
    return new Client('http://gateway', 'token', script($asked, ...$answers), minBackoff: 0.0, maxBackoff: 0.0);
}

function test_what_can_be_read_is_read_and_the_rest_is_tried_again(): void
{
    same(is_array(Json::decode(str_repeat('[', 510) . str_repeat(']', 510))), true);
    $asked = [];
    $page = '{"events":[],"cursor":"a@k-0"}';
    // Cut off by a gateway that died while it answered, then whole.
    same(scripted($asked, '{"events":[{"specver', $page)->pull('crm', fn () => null)->run(untilEmpty: true), 0);
    foreach (['<html>', '[]', '7', '{"events":7}'] as $garbage) {
        $error = throws(LonglineException::class, fn () => scripted($asked, $garbage)->pull('crm', fn () => null)->run());
        same($error->errorCode, 'protocol', $garbage);
    }
}

function test_tokens_from_files_have_line_ends_and_what_is_no_token_is_told(): void
{
    $asked = [];
    $with = function (mixed $token) use (&$asked): Client {
        return new Client('http://gateway', $token, script($asked, '{}'));
    };
    $with(fn () => " abc\n")->request('GET', '/v1/nodes');
    same($asked[0]['headers']['authorization'], 'Bearer abc');
    foreach (["two words", "a\r\nx: y", null, 7] as $bad) {
        same(throws(LonglineException::class, fn () => $with(fn () => $bad)->request('GET', '/v1/nodes'))->errorCode, 'unauthorized');
    }
    foreach ([null, false, 7] as $bad) {
        same(throws(LonglineException::class, fn () => $with($bad))->errorCode, 'bad_request');
    }
}

function test_what_cannot_be_a_handler_is_refused(): void
{
    $asked = [];
    $client = scripted($asked, '{}');
    throws(InvalidArgumentException::class, fn () => $client->pull('crm', function ($event, $delivery) { yield; }));
    throws(InvalidArgumentException::class, fn () => $client->pull('crm', fn ($a, $b, $c) => null));
    $client->pull('crm', 'var_dump');
    $client->pull('crm', fn (...$all) => null);
}

function test_a_redirect_is_told_and_not_followed(): void
{
    $asked = [];
    $moved = new Answer(308, ['location' => 'https://elsewhere/'], '');
    $error = throws(LonglineException::class, fn () => scripted($asked, $moved)->request('GET', '/v1/nodes'));
    same(str_contains($error->getMessage(), '308, to https://elsewhere/'), true);
}

function test_who_is_stopped_sleeps_no_more(): void
{
    // The gateway says to come in an hour, and a signal comes before that is slept for.
    $transport = new class implements Transport {
        public ?\Longline\Puller $puller = null;

        public function send(string $method, string $url, array $headers, ?string $body, float $timeout): Answer
        {
            $this->puller->stop();
            return new Answer(503, ['retry-after' => '3600'], '');
        }
    };
    $transport->puller = (new Client('http://gateway', 'token', $transport))->pull('crm', fn () => null);
    same($transport->puller->run(), 0);
}

function test_who_drips_is_not_waited_for_forever(): void
{
    $drips = <<<'CODE'
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        echo stream_socket_get_name($listener, false), "\n";
        $peer = stream_socket_accept($listener, 20);
        fwrite($peer, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
        while (@fwrite($peer, 'x')) {
            usleep(10_000);
        }
        CODE;
    $process = proc_open([PHP_BINARY, '-r', $drips], [1 => ['pipe', 'w'], 2 => ['file', '/dev/null', 'w']], $pipes);
    $client = new Client('http://' . trim((string) fgets($pipes[1])), timeout: 0.3);
    same(throws(LonglineException::class, fn () => $client->request('GET', '/v1/nodes'))->errorCode, 'connection');
    proc_terminate($process, 9);
    proc_close($process);
}
