<?php

declare(strict_types=1);

use Longline\Adapters\Laravel;
use Longline\Adapters\WordPress;
use Longline\Callback;
use Longline\Event;
use Longline\Reject;
use Longline\RetryAfter;

const SECRET = 'whsec_c2VjcmV0c2VjcmV0c2VjcmV0';

function body(string ...$data): string
{
    $events = array_map(fn ($d) => ['specversion' => '1.0', 'id' => $d, 'source' => '/s', 'type' => 't', 'channel' => 'a', 'cursor' => 'a@k-1', 'data' => $d], $data);
    return json_encode(count($events) === 1 ? $events[0] : $events);
}

function signed(string $body, string $secret = SECRET): array
{
    $stamp = (string) time();
    $mac = hash_hmac('sha256', "m1.$stamp.$body", base64_decode(substr($secret, 6)), true);
    return ['Webhook-Id' => 'm1', 'Webhook-Timestamp' => $stamp, 'Webhook-Signature' => 'v1,' . base64_encode($mac)];
}

function handler(): Closure
{
    return static fn (Event $event) => match ($event->data) {
        'bad' => throw new Reject('bad'),
        'busy' => throw new RetryAfter(6.5),
        'broken' => throw new LogicException('no'),
        default => null,
    };
}

function test_answers_to_callbacks(): void
{
    $answer = function (string $body, ?array $headers = null): array {
        $answer = Callback::answer($headers ?? signed($body), $body, SECRET, handler());
        return [$answer->status, $answer->header('retry-after') ?: $answer->body];
    };
    same($answer(body('good')), [204, '']);
    same($answer(body('good'), [])[0], 401);
    same($answer(body('good'), signed(body('good'), 'whsec_b3RoZXI='))[0], 401);
    same($answer('nonsense')[0], 400);
    same($answer(body('bad'))[0], 422);
    same($answer(body('busy')), [503, '7']);
    same($answer(body('broken'))[0], 500);
    same($answer(body('one', 'bad', 'two')), [200, '{"rejected":["bad"]}']);
}

function test_a_secret_that_is_none_is_refused(): void
{
    foreach (['', 'whsec_', 'whsec_***', []] as $secret) {
        throws(InvalidArgumentException::class, fn () => Callback::verify([], '', $secret));
    }
}

function test_wordpress_has_a_route(): void
{
    WordPress::route('longline/v1', '/callback', SECRET, handler());
    [$namespace, $route, $how] = $GLOBALS['rest_routes'][0];
    same([$namespace, $route, $how['methods']], ['longline/v1', '/callback', 'POST']);
    $request = new class (body('bad')) {
        public function __construct(private string $body)
        {
        }

        public function get_headers(): array
        {
            $made = [];
            foreach (signed($this->body) as $name => $value) {
                $made[strtr(strtolower($name), '-', '_')] = [$value];
            }
            return $made;
        }

        public function get_body(): string
        {
            return $this->body;
        }
    };
    same($how['callback']($request)->status, 422);
}

function test_laravel_has_an_action(): void
{
    $request = new class (body('good')) {
        public object $headers;

        public function __construct(private string $body)
        {
            $this->headers = new class (array_map(fn ($v) => [$v], signed($body))) {
                public function __construct(private array $all)
                {
                }

                public function all(): array
                {
                    return $this->all;
                }
            };
        }

        public function getContent(): string
        {
            return $this->body;
        }
    };
    same(Laravel::callback(SECRET, handler())($request)[1], 204);
}

// What the frameworks have, as far as the adapters use it.

class WP_REST_Response
{
    public function __construct(public mixed $data, public int $status, public array $headers)
    {
    }
}

function register_rest_route(string $namespace, string $route, array $how): void
{
    $GLOBALS['rest_routes'][] = [$namespace, $route, $how];
}

function response(string $body, int $status, array $headers): array
{
    return [$body, $status, $headers];
}
