<?php

/**
 * A front controller in Laravel's manner, in so few lines that it runs without
 * Laravel: what stands under "routes" is what routes/api.php would have.
 */
declare(strict_types=1);

require __DIR__ . '/../../client/php/autoload.php';

// What the framework does.

final class Request
{
    public object $headers;

    public function __construct()
    {
        $this->headers = new class {
            public function all(): array
            {
                $made = [];
                foreach ($_SERVER as $name => $value) {
                    if (str_starts_with($name, 'HTTP_')) {
                        $made[strtolower(strtr(substr($name, 5), '_', '-'))] = [$value];
                    }
                }
                return $made;
            }
        };
    }

    public function getContent(): string
    {
        return file_get_contents('php://input');
    }
}

final class Route
{
    public static array $posts = [];

    public static function post(string $path, Closure $action): void
    {
        self::$posts[$path] = $action;
    }
}

function response(string $body, int $status = 200, array $headers = []): string
{
    http_response_code($status);
    foreach ($headers as $name => $value) {
        header("$name: $value");
    }
    return $body;
}

// routes/api.php

Route::post('/longline', Longline\Adapters\Laravel::callback(getenv('LONGLINE_CALLBACK_SECRET'), function (Longline\Event $event): void {
    // Dispatch a job here if it takes long: NoteContact::dispatch($event->attributes);
    file_put_contents(getenv('NOTES'), "$event->subject: $event->type\n", FILE_APPEND);
}));

// public/index.php

$action = Route::$posts[parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)] ?? fn () => response('not found', 404);
echo $action(new Request());
